#!/bin/bash
# Processes on this machine, nothing else needed: `processes.sh 2 digits --epochs 3 --batch-size 64`.
# On several machines the same command is started on each, with process 0's name or address in the place of 127.0.0.1.
# Ends as process 0 does; when that is lost, the others end too.

processes=$1
shift
here=127.0.0.1:${PORT:-12345}
for ((k = 1; k < processes; k++)); do
    pellucid train "$@" --distributed "$here" --processes "$processes" --process $k &
done
pellucid train "$@" --distributed "$here" --processes "$processes" --process 0
status=$?
wait
exit $status

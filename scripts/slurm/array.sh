#!/bin/bash
# Takes part in a sweep or a reproduction from every task of a Slurm array:
#
#     sbatch --array=1-4 scripts/slurm/array.sh sweep --setting cifar10-resnet18-qcfs --profile paper --grid time_steps=8,16,32
#
# Each task runs `dynconf ARGUMENTS --join` on one GPU. The tasks are equal: any number of them may run at a time, and each
# writes the same results once all points are done. Submitting the same again computes only what is missing.
#
# The environment comes from a file of bash that only you can read (mode 600), by default ~/.config/dynconf/environment:
#
#     PATH=/shared/dynconf/bin:$PATH                       # where the command dynconf is
#     DYNCONF_HOME=/shared/dynconf/home                    # artefacts and results, seen by all nodes
#     DYNCONF_STORAGE=postgresql://user:password@host/db   # who takes which point; without it, a journal in the home
#     PREFECT_API_URL=http://host:4200/api                 # optional: without it, each task runs a server of its own
#     MLFLOW_TRACKING_URI=http://host:5000                 # without it, a database in the home, for one node alone
#
#SBATCH --job-name=dynconf
#SBATCH --ntasks=1
#SBATCH --cpus-per-task=8
#SBATCH --gres=gpu:1
#SBATCH --mem=32G
#SBATCH --time=24:00:00
#SBATCH --output=dynconf-%A_%a.log
#SBATCH --open-mode=append
# Slurm stores the environment of a job: nothing else of the submitting shell gets there, passwords least of all.
#SBATCH --export=HOME,USER,PATH,DYNCONF_ENVIRONMENT
# Five minutes before the limit, this script hears USR1: it ends dynconf in order and submits itself again.
#SBATCH --signal=B:USR1@300
# After the failure of a node, Slurm itself runs the task again.
#SBATCH --requeue

set -u
file=${DYNCONF_ENVIRONMENT:-$HOME/.config/dynconf/environment}
if [ ! -f "$file" ]; then
    echo "There is no $file: write DYNCONF_HOME=... into it, or name another file by DYNCONF_ENVIRONMENT." >&2
    exit 2
fi
if [ "$(stat -L -c %a "$file")" != 600 ]; then
    echo "Others may read $file, which may hold a password: chmod 600 $file" >&2
    exit 2
fi
set -a # export what it sets
. "$file" || exit 2
set +a
if [ -z "${DYNCONF_HOME:-}" ]; then
    echo "$file does not set DYNCONF_HOME, the folder that all nodes share." >&2
    exit 2
fi
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-${SLURM_CPUS_PER_TASK:-1}}

if [ -z "${PREFECT_API_URL:-}" ]; then
    # A server of its own keeps its database on this node: SQLite is not safe where nodes share a folder.
    PREFECT_HOME=$(mktemp -d "${TMPDIR:-/tmp}/dynconf-prefect-XXXXXX") || exit 1
    export PREFECT_HOME
    trap 'rm -rf "$PREFECT_HOME"' EXIT
fi

limit=
end() {
    kill -TERM "$dynconf" 2>/dev/null # finished stages are kept, its points go back to the others
}
trap 'limit=yes; end' USR1
trap 'end' TERM # scancel

echo "$(date -Is) task ${SLURM_ARRAY_TASK_ID:-0} on $(hostname), GPU ${CUDA_VISIBLE_DEVICES:-none}: dynconf $* --join"
dynconf "$@" --join &
dynconf=$!
wait "$dynconf"
code=$?
while kill -0 "$dynconf" 2>/dev/null; do # a signal ends `wait` before dynconf has ended
    wait "$dynconf"
    code=$?
done
echo "$(date -Is) ended with exit code $code"
if [ -n "$limit" ] && [ "$code" -ge 128 ]; then
    # This task alone: the number of an array's last task is also that of the whole array.
    scontrol requeue "${SLURM_ARRAY_JOB_ID:-$SLURM_JOB_ID}${SLURM_ARRAY_TASK_ID:+_$SLURM_ARRAY_TASK_ID}"
fi
exit "$code"

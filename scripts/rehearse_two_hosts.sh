#!/usr/bin/env bash
# Rehearse a run of two machines on one machine: two network namespaces joined by a cable, one process in each. Needs root
# and iproute2 (Linux). Nothing of it stays but the work folder.
#
#   sudo bash scripts/rehearse_two_hosts.sh [FOLDER]
#
# Each host has its own address, its own working folder, and its own copies of recipe, data and model. Shared is only
# FOLDER/shared, where the run folders are, as a network file system would share it. What is tried:
#
#   together     both train one run; it must be the run of one process (scripts/same_run.py)
#   copies       another setting in the recipe of host 1: refused at the start
#   folder       a run folder that host 1 has for itself: refused at the start
#   data         host 1 has no data: both end, and host 0 says that it is host 1
#   killed       every process of host 1 is killed with -9 in mid-run: host 0 ends too, and says why; both resume
#   cut          the cable is cut in mid-run: both end at a deadline, and say why; both resume
set -euo pipefail

fail() {
  echo "error: $*" >&2
  exit 2
}
[ "$(uname)" = Linux ] || fail "network namespaces are a thing of Linux, and this is $(uname). Rehearse on Linux."
command -v ip >/dev/null || fail "the command ip is missing. Install iproute2."
[ "$(id -u)" = 0 ] || fail "network namespaces need root, and this is $(id -un). Run it as root or with sudo."

source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
export OMP_NUM_THREADS=1 HF_HUB_OFFLINE=1 GLOO_SOCKET_IFNAME=cable
unset RANK LOCAL_RANK WORLD_SIZE LOCAL_WORLD_SIZE MASTER_ADDR MASTER_PORT
root="$PWD"
mkdir -p "${1:-runs}"
work="$(realpath "${1:-runs}")/two_hosts-$(date +%Y%m%d-%H%M%S)"
hosts=("mm-agrae-$$-0" "mm-agrae-$$-1")
addresses=(10.77.0.1 10.77.0.2)
deadline_s=40
mkdir -p "$work"/{shared,logs,host0,host1}

dismantle() {
  for host in "${hosts[@]}"; do
    ip netns pids "$host" 2>/dev/null | xargs -r kill -9 2>/dev/null || true
    ip netns del "$host" 2>/dev/null || true
  done
}
trap dismantle EXIT
trap 'exit 130' INT TERM

build_hosts() {
  ip netns add "${hosts[0]}" && ip netns add "${hosts[1]}" &&
    ip link add cable netns "${hosts[0]}" type veth peer name cable netns "${hosts[1]}" ||
    fail "this machine makes no network namespaces (a container may forbid it). Rehearse on one that does."
  for number in 0 1; do
    ip -n "${hosts[$number]}" address add "${addresses[$number]}/24" dev cable
    ip -n "${hosts[$number]}" link set lo up
    ip -n "${hosts[$number]}" link set cable up
  done
}

# NUMBER COMMAND ...: a command on that host, in its folder.
on_host() {
  ip netns exec "${hosts[$1]}" env -C "$work/host$1" "${@:2}"
}

# NUMBER WORDS ...: what a user types on that host to train.
train_on_host() {
  on_host "$1" accelerate launch --config_file "$root/configs/accelerate/multi_node.yaml" \
    --num_machines 2 --num_processes 2 --main_process_ip "${addresses[0]}" --machine_rank "$1" \
    -m mm_agrae.cli.main train recipe.yaml "${@:2}"
}

# NAME WORDS ...: both hosts train; their exit statuses are left in `statuses`, what they said in logs/NAME.0 and .1.
train_on_both() {
  start_both "$@"
  end_both
}
start_both() {
  running=()
  for number in 0 1; do
    train_on_host "$number" "${@:2}" >"$work/logs/$1.$number" 2>&1 &
    running+=($!)
  done
}
end_both() {
  statuses=(0 0)
  for number in 0 1; do
    wait "${running[$number]}" || statuses[number]=$?
  done
}

now() { date +%s%N; }
# START [END]: seconds between two times, with one decimal.
since() {
  local tenths=$(((${2:-$(now)} - $1) / 100000000))
  echo "$((tenths / 10)).$((tenths % 10))"
}
say() { printf '%-10s %-72s %8s s\n' "$1" "$2" "$3"; }
# NAME NUMBER TEXT: that host said so; of '?' either did.
expect_said() {
  local logs=("$work/logs/$1."$2)
  cat "${logs[@]}" | grep -qF -- "$3" || { tail -n 40 "${logs[@]}" >&2 && fail "host $2 did not say: $3"; }
}
# NAME: both hosts ended as a finished run does.
expect_finished() {
  [ "${statuses[*]}" = "0 0" ] || { tail -n 40 "$work/logs/$1".? >&2 && fail "$1: the hosts ended with ${statuses[*]}"; }
}
# NAME: both hosts ended with an error.
expect_stopped() {
  [ "${statuses[0]}" != 0 ] && [ "${statuses[1]}" != 0 ] || fail "$1: the hosts ended with ${statuses[*]}"
}
# RUN: waits for its second step, at most ten minutes.
await_two_steps() {
  local end=$((SECONDS + 600))
  until [ -f "$work/shared/$1/checkpoints/step_000002/COMPLETE" ]; do
    [ $SECONDS -lt $end ] || { tail -n 40 "$work/logs/$1".? >&2 && fail "$1 made no two steps in ten minutes"; }
    sleep 0.2
  done
}
# RUN: both hosts go on with it, and it ends as the run of one process.
resume_both() {
  local started
  started=$(now)
  train_on_both "$1-resumed" --out "$work/shared/$1" --resume "${short[@]}"
  expect_finished "$1-resumed"
  python "$root/scripts/same_run.py" "$work/shared/$1" "$work/shared/one" >"$work/logs/$1.compared" ||
    { cat "$work/logs/$1.compared" >&2 && fail "the resumed run $1 is not the run of one process"; }
  say "$1" "both resumed; the whole run is that of one process" "$(since "$started")"
}

prepare() {
  local families=charts/tallest_bar,charts/red_bar
  mm-agrae data gym --out "$work/host0/data" --families "$families" --size 64 --num 640 --held-out 16 --seed 0
  mm-agrae model tiny --out "$work/raw" --data "$work/host0/data" --architecture qwen2_5_vl
  sed -e "s#runs/quickstart/model#model#; s#runs/quickstart/data#data#" configs/quickstart.yaml >"$work/host0/recipe.yaml"
  (cd "$work/host0" && mm-agrae sft recipe.yaml "model.path=$work/raw" sft.num_steps=50 sft.batch_size=32 --out "$work/warm_start")
  cp -r "$work/warm_start/checkpoints/step_000050/model" "$work/host0/model"
  cp -r "$work/host0/." "$work/host1"
}

build_hosts
echo "work folder: $work"
prepare >"$work/logs/prepare" 2>&1 || { tail -n 40 "$work/logs/prepare" >&2 && fail "the model and its data cannot be made"; }
# 5 prompts over 2 hosts: an uneven share. The overrides are the same for every run, so that they can be compared.
short=(rollout.num_prompts=5 rollout.group_size=4 train.num_steps=6 train.checkpoint_every=2 train.rollout_log_every=1)
short+=(evaluate.num_samples=2 'evaluate.ks=[1,2]')

started=$(now)
(cd "$work/host0" && mm-agrae train recipe.yaml "${short[@]}" --out "$work/shared/one") >"$work/logs/one" 2>&1 ||
  { tail -n 40 "$work/logs/one" >&2 && fail "one process cannot train"; }
say one "one process trains the run that the others are compared with" "$(since "$started")"

started=$(now)
train_on_both together --out "$work/shared/together" "${short[@]}"
expect_finished together
compared="$(python scripts/same_run.py "$work/shared/together" "$work/shared/one")" ||
  fail "two hosts did not train the run of one process: $compared"
say together "$compared" "$(since "$started")"

sed -i 's/^seed: 0/seed: 1/' "$work/host1/recipe.yaml"
started=$(now)
train_on_both copies --out "$work/shared/copies" "${short[@]}"
sed -i 's/^seed: 1/seed: 0/' "$work/host1/recipe.yaml"
expect_stopped copies
expect_said copies 0 "seed: 0 -> 1"
expect_said copies 1 "seed: 0 -> 1"
[ ! -e "$work/shared/copies" ] || fail "copies: a refused run left a folder"
say copies "refused by both hosts: the seed of host 1 is named" "$(since "$started")"

started=$(now)
train_on_both folder --out own "${short[@]}" # in each host's own folder
expect_stopped folder
expect_said folder 0 "all processes of a run share its folder, own"
expect_said folder 1 "all processes of a run share its folder, own"
say folder "refused by both hosts: they do not share the run folder" "$(since "$started")"

mv "$work/host1/data" "$work/host1/elsewhere"
started=$(now)
train_on_both data --out "$work/shared/data" "${short[@]}"
mv "$work/host1/elsewhere" "$work/host1/data"
expect_stopped data
expect_said data 0 "rank 1 on "
expect_said data 1 "error: data"
say data "host 1 has no data: both ended and said so" "$(since "$started")"

start_both killed --out "$work/shared/killed" "${short[@]}" "supervision.deadline_s=$deadline_s"
await_two_steps killed
started=$(now)
ip netns pids "${hosts[1]}" | xargs kill -9
end_both
expect_stopped killed
expect_said killed 0 "cannot reach the other processes"
say killed "host 1 killed: host 0 ended and said why" "$(since "$started")"
resume_both killed

start_both cut --out "$work/shared/cut" "${short[@]}" "supervision.deadline_s=$deadline_s"
await_two_steps cut
started=$(now)
ip -n "${hosts[1]}" link set cable down
end_both
ip -n "${hosts[1]}" link set cable up
expect_stopped cut
expect_said cut '?' "over its deadline of" # of a phase, or the sum of all; the first that finds it speaks for both
say cut "cable cut: both ended at the deadline, with a table of ranks" "$(since "$started")"
resume_both cut

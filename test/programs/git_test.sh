. "$(dirname "$0")/lib.sh"
export GIT_CONFIG_GLOBAL=/dev/null GIT_CONFIG_SYSTEM=/dev/null GIT_AUTHOR_NAME=a GIT_AUTHOR_EMAIL=a@b GIT_COMMITTER_NAME=a GIT_COMMITTER_EMAIL=a@b
cd "$SCRATCH"
git init -q repo && cd repo
for i in $(seq 1 30); do echo "file $i" > "f$i"; git add . && git commit -qm "commit $i"; done
head=$(git rev-parse HEAD)
same "clone" "$head 30" "$(sandbox bash -c "cd /tmp && git clone -q '$SCRATCH/repo' copy && cd copy && git fsck --no-progress && echo \$(git rev-parse HEAD) \$(git log --oneline | wc -l)" 2>&1)"
same "commit inside" "31" "$(sandbox bash -c "cd /tmp && git clone -q '$SCRATCH/repo' copy && cd copy && echo new > g && git add g && git commit -qm inside && git status --short && git log --oneline | wc -l" 2>&1)"
same "the host's repository is untouched" "$head" "$(git rev-parse HEAD)"
finish

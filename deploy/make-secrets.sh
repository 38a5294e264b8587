#!/bin/sh
# Write the secrets that compose.yaml mounts, once; those that exist stay as they are.
#   deploy/make-secrets.sh [TENANT…]     one agents' token for each tenant (default: acme)
set -eu
cd "$(dirname "$0")"
# The folder keeps others on this machine out; the files are readable because the containers'
# user, to whom each is mounted by itself, is not the one who runs this.
mkdir -p -m 700 secrets

random() { od -An -N32 -tx1 /dev/urandom | tr -d ' \n'; }
write() { [ -e "secrets/$1" ] || (cat > "secrets/$1" && chmod 644 "secrets/$1" && echo "wrote deploy/secrets/$1"); }

# Phoenix wants a digit and a lower-case letter in its secrets: `a1` makes sure.
echo "a1$(random)" | write phoenix_secret
echo "a1$(random)" | write phoenix_admin_secret
# With which admin@localhost signs in for the first time.
echo "a1$(random)" | write phoenix_first_password
random | write vllm_api_key
# With which the gateway asks the daemon what to serve.
random | write gateway_token
# People who may use the console: lines as `learnd operators hash NAME` prints them (see compose.yaml).
echo "# NAME ROLE HASH" | write operators
for tenant in "${@:-acme}"; do echo "$(random) $tenant"; done | write agent_tokens

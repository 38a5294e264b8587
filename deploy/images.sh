#!/bin/sh
# Name the images of a release by digest, in deploy/images.env, which is committed with the release.
#   deploy/images.sh pin      ask the registries for the digests; needs Docker and a network
#   deploy/images.sh check    fail unless each image has a digest; `make images` does so before it builds
# They take effect with `docker compose --env-file deploy/images.env -f deploy/compose.yaml …`.
set -eu
cd "$(dirname "$0")"
FILE=${IMAGES_FILE:-images.env}
IMAGES="PYTHON_IMAGE=python:3.11-slim VLLM_IMAGE=vllm/vllm-openai:v0.32.0"

case "${1:-}" in
pin)
    for image in $IMAGES; do
        digest=$(docker buildx imagetools inspect --format '{{.Manifest.Digest}}' "${image#*=}")
        echo "$image@$digest"
    done >"$FILE.new"
    mv "$FILE.new" "$FILE"
    ;;
check)
    for image in $IMAGES; do
        grep -Eqsx "${image%%=*}=[^@[:space:]]+@sha256:[0-9a-f]{64}" "$FILE" || {
            echo "deploy/$FILE names no digest for ${image%%=*}: run deploy/images.sh pin" >&2
            exit 1
        }
    done
    ;;
*)
    echo "usage: deploy/images.sh pin | check" >&2
    exit 2
    ;;
esac

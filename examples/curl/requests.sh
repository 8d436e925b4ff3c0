#!/usr/bin/env bash
# The same calls with curl: models, Responses and Chat Completions, whole and streamed.
#
#     HONSHU_API_KEY=sk-… examples/curl/requests.sh
set -euo pipefail
base=${HONSHU_BASE_URL:-http://127.0.0.1:8080/v1}
model=${HONSHU_MODEL:-huggingfacetb.smollm2-135m-instruct}
call() {
    # The header comes from standard input, so that the key never shows in the list of processes.
    curl -sS --fail-with-body -H @- "$@" <<<"Authorization: Bearer ${HONSHU_API_KEY:?set HONSHU_API_KEY}"
    echo
}

call "$base/models"

call "$base/responses" -H 'Content-Type: application/json' \
    -d "{\"model\": \"$model\", \"input\": \"What is the capital of France?\"}"

call -N "$base/responses" -H 'Content-Type: application/json' \
    -d "{\"model\": \"$model\", \"input\": \"What is the capital of France?\", \"stream\": true}"

call "$base/chat/completions" -H 'Content-Type: application/json' \
    -d "{\"model\": \"$model\", \"messages\": [{\"role\": \"user\", \"content\": \"What is the capital of France?\"}]}"

call -N "$base/chat/completions" -H 'Content-Type: application/json' \
    -d "{\"model\": \"$model\", \"messages\": [{\"role\": \"user\", \"content\": \"What is the capital of France?\"}], \"stream\": true}"

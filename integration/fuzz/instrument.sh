#!/bin/bash
# The compiler for `make fuzz` (RUSTC_WORKSPACE_WRAPPER does not reach dependencies, so RUSTC_WRAPPER): has it count
# which places of the code are passed, and tell what is compared. LLVM has that in every build, so the stable
# compiler will do. Not for what runs on the host while building, and not for the one who looks at the counters.
set -euo pipefail
case " $* " in
  *" --crate-name fuzz "*" --target "*) exec "$@" --cfg fuzzing ;;
  *" --target "*)
    exec "$@" --cfg fuzzing -C passes=sancov-module -C codegen-units=1 \
      -C llvm-args=-sanitizer-coverage-level=3 \
      -C llvm-args=-sanitizer-coverage-inline-8bit-counters \
      -C llvm-args=-sanitizer-coverage-trace-compares
    ;;
  *) exec "$@" ;;
esac

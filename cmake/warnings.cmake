# Warnings of our own code; third-party headers come in as SYSTEM.
add_library(lamina_warnings INTERFACE)
set(warnings
  -Wall -Wextra -Wpedantic -Wshadow -Wconversion -Wnon-virtual-dtor
  -Wno-missing-field-initializers  # designated initialisers leave defaults on purpose
  # libstdc++ 12's own std::stable_sort uses what clang 19 calls deprecated.
  $<$<CXX_COMPILER_ID:Clang>:-Wno-deprecated-declarations>)
target_compile_options(lamina_warnings INTERFACE "$<$<COMPILE_LANGUAGE:CXX>:${warnings}>")
if(LAMINA_WERROR)
  target_compile_options(lamina_warnings INTERFACE
    $<$<COMPILE_LANGUAGE:CXX>:-Werror> $<$<COMPILE_LANGUAGE:CUDA>:-Werror=all-warnings>)
endif()

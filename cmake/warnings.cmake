# Warnings of our own code; third-party headers come in as SYSTEM.
add_library(lamina_warnings INTERFACE)
target_compile_options(lamina_warnings INTERFACE
  -Wall -Wextra -Wpedantic -Wshadow -Wconversion -Wnon-virtual-dtor
  -Wno-missing-field-initializers  # designated initialisers leave defaults on purpose
  # libstdc++ 12's own std::stable_sort uses what clang 19 calls deprecated.
  $<$<CXX_COMPILER_ID:Clang>:-Wno-deprecated-declarations>)
if(LAMINA_WERROR)
  target_compile_options(lamina_warnings INTERFACE -Werror)
endif()

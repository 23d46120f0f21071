# Warnings of our own code; third-party headers come in as SYSTEM.
add_library(lamina_warnings INTERFACE)
target_compile_options(lamina_warnings INTERFACE
  -Wall -Wextra -Wpedantic -Wshadow -Wconversion -Wnon-virtual-dtor
  -Wno-missing-field-initializers)  # designated initialisers leave defaults on purpose
if(LAMINA_WERROR)
  target_compile_options(lamina_warnings INTERFACE -Werror)
endif()

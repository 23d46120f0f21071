# One static library per room, lamina_<room>, whose DEPS are the rooms it may include (docs/architecture.md).
#   lamina_room(kv SRCS block_table.cc ... TESTS block_table_test.cc ... DEPS tensor device
#               LIBS PkgConfig::foo    # third-party, wrapped by this room
#               CUDA_SRCS cuda/a.cu NO_CUDA_SRCS no_cuda.cc  # the one or the other is linked
#               CUDA_LIBS CUDA::cublasLt
#               LABELS kernel)         # ctest label of its tests, "unit" by default
# Every test file of a room goes into one executable, lamina_<room>_test: one link, and gtest filters inside it.
function(lamina_room name)
  cmake_parse_arguments(ARG "" "LABELS" "SRCS;CUDA_SRCS;NO_CUDA_SRCS;CUDA_LIBS;TESTS;TEST_LIBS;DEPS;LIBS" ${ARGN})
  if(LAMINA_HAS_CUDA)
    list(APPEND ARG_SRCS ${ARG_CUDA_SRCS})
    list(APPEND ARG_LIBS ${ARG_CUDA_LIBS})
  else()
    list(APPEND ARG_SRCS ${ARG_NO_CUDA_SRCS})
  endif()
  add_library(lamina_${name} STATIC ${ARG_SRCS})
  target_include_directories(lamina_${name} PUBLIC ${PROJECT_SOURCE_DIR}/src)
  set(deps ${ARG_DEPS})
  if(NOT name STREQUAL "base")
    list(APPEND deps base)
  endif()
  list(TRANSFORM deps PREPEND lamina_)
  target_link_libraries(lamina_${name} PUBLIC ${deps} PRIVATE lamina_warnings ${ARG_LIBS})
  if(LAMINA_BUILD_TESTS AND ARG_TESTS)
    if(NOT ARG_LABELS)
      set(ARG_LABELS unit)
    endif()
    lamina_test(lamina_${name}_test SRCS ${ARG_TESTS} LABELS ${ARG_LABELS}
                LIBS lamina_${name} ${ARG_LIBS} ${ARG_TEST_LIBS})
  endif()
endfunction()

# lamina_test(target SRCS ... LABELS ... LIBS ...): a GoogleTest executable, discovered by ctest.
function(lamina_test target)
  cmake_parse_arguments(ARG "" "TIMEOUT" "SRCS;LABELS;LIBS" ${ARGN})
  if(NOT ARG_TIMEOUT)
    set(ARG_TIMEOUT 120)
  endif()
  add_executable(${target} ${ARG_SRCS})
  target_link_libraries(${target} PRIVATE lamina_warnings ${ARG_LIBS} GTest::gmock_main)
  target_include_directories(${target} PRIVATE ${PROJECT_SOURCE_DIR}/tests ${PROJECT_SOURCE_DIR}/src)
  target_compile_definitions(${target} PRIVATE LAMINA_SOURCE_DIR="${PROJECT_SOURCE_DIR}")
  gtest_discover_tests(${target} DISCOVERY_TIMEOUT 60
                       PROPERTIES LABELS "${ARG_LABELS}" TIMEOUT ${ARG_TIMEOUT})
endfunction()

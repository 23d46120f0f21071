# lamina_gpu_program(target): makes a program part of the bundle that scripts/gpu-test takes to a GPU machine: the
# program and the shared libraries that another distribution may lack, found beside it.
function(lamina_gpu_program target)
  set_target_properties(${target} PROPERTIES INSTALL_RPATH "$ORIGIN/../lib")
  # As DT_RPATH, which libraries that have none of their own inherit.
  target_link_options(${target} PRIVATE LINKER:--disable-new-dtags)
  install(TARGETS ${target} RUNTIME_DEPENDENCY_SET lamina_gpu_libraries
          RUNTIME DESTINATION bin COMPONENT gpu)
endfunction()

# Once, after all programs: what the C library and CUDA's own packages bring stays theirs.
function(lamina_gpu_bundle)
  install(RUNTIME_DEPENDENCY_SET lamina_gpu_libraries
          PRE_EXCLUDE_REGEXES "^lib(c|m|dl|rt|pthread|resolv)\\.so" "^ld-linux" "^libcu" "^libnv" "^libnccl"
          LIBRARY DESTINATION lib COMPONENT gpu)
endfunction()

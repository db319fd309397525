# Unit tests (tests/unit/test_*.c, cmocka; test_*.py for the tree itself) and fuzz targets (tests/fuzz/fuzz_*.c).
pkg_check_modules(CMOCKA REQUIRED IMPORTED_TARGET cmocka)
find_package(Python3 REQUIRED COMPONENTS Interpreter)

file(GLOB support CONFIGURE_DEPENDS tests/support/*.c)
if(support)
    add_library(test_support STATIC ${support})
    target_include_directories(test_support PUBLIC tests/support PRIVATE src)
    target_compile_definitions(test_support PRIVATE SOURCE_DIR="${CMAKE_SOURCE_DIR}")
    target_link_libraries(test_support PUBLIC ${FOLDERS} PkgConfig::CMOCKA)
endif()

# The stack as sockets on virtual time, for conformance runners (tests/adapter/vsock.h). Position-independent objects of its own, so
# that the product's are built as they are shipped; nothing but the header's functions can be seen from outside.
file(GLOB vsock_sources CONFIGURE_DEPENDS tests/adapter/*.c src/base/*.c src/stack/*.c)
add_library(culvert_vsock SHARED ${vsock_sources})
set_target_properties(culvert_vsock PROPERTIES C_VISIBILITY_PRESET hidden PUBLIC_HEADER tests/adapter/vsock.h)
target_include_directories(culvert_vsock PUBLIC tests/adapter PRIVATE src/base src/stack)
target_link_libraries(culvert_vsock PUBLIC culvert_flags PRIVATE Threads::Threads)

file(GLOB unit_tests CONFIGURE_DEPENDS tests/unit/test_*.c)
foreach(source IN LISTS unit_tests)
    get_filename_component(name ${source} NAME_WE)
    add_executable(${name} ${source})
    # A test may face a folder's private headers, but reaches them by name: "stack/tcp_impl.h".
    target_include_directories(${name} PRIVATE src)
    target_link_libraries(${name} PRIVATE $<TARGET_NAME_IF_EXISTS:test_support> ${FOLDERS} PkgConfig::CMOCKA)
    target_compile_definitions(${name} PRIVATE SOURCE_DIR="${CMAKE_SOURCE_DIR}")
    add_test(NAME ${name} COMMAND ${name})
    set_tests_properties(${name} PROPERTIES TIMEOUT 120 LABELS unit SKIP_RETURN_CODE 77)
endforeach()

target_link_libraries(test_vsock PRIVATE culvert_vsock)

# Programs that embed the stack, as docs/examples shows them: they link to nothing else.
file(GLOB examples CONFIGURE_DEPENDS docs/examples/*.c)
foreach(source IN LISTS examples)
    get_filename_component(name ${source} NAME_WE)
    add_executable(example_${name} ${source})
    target_link_libraries(example_${name} PRIVATE stack)
endforeach()

file(GLOB tree_tests CONFIGURE_DEPENDS tests/unit/test_*.py)
foreach(source IN LISTS tree_tests)
    get_filename_component(name ${source} NAME_WE)
    add_test(NAME ${name} COMMAND ${Python3_EXECUTABLE} ${source} WORKING_DIRECTORY ${CMAKE_SOURCE_DIR})
    set_tests_properties(${name} PROPERTIES TIMEOUT 120 LABELS unit SKIP_RETURN_CODE 77 ENVIRONMENT "BUILD_DIR=${CMAKE_BINARY_DIR}")
endforeach()

# What lists of rules cost (docs/performance.md); built only when asked for.
add_executable(bench_rules EXCLUDE_FROM_ALL tests/bench/rules.c)
target_link_libraries(bench_rules PRIVATE rules base)

# A fuzz target is LLVMFuzzerTestOneInput in one file. Without libFuzzer it is linked to a small main that replays its corpus.
file(GLOB fuzz_targets CONFIGURE_DEPENDS tests/fuzz/fuzz_*.c)
foreach(source IN LISTS fuzz_targets)
    get_filename_component(name ${source} NAME_WE)
    string(REPLACE "fuzz_" "" corpus ${name})
    if(FUZZERS)
        add_executable(${name} ${source})
        target_link_options(${name} PRIVATE -fsanitize=fuzzer)
    else()
        add_executable(${name} ${source} tests/fuzz/replay.c)
        add_test(NAME ${name} COMMAND ${name} ${CMAKE_SOURCE_DIR}/tests/fuzz/corpus/${corpus})
        set_tests_properties(${name} PROPERTIES TIMEOUT 120 LABELS fuzz)
    endif()
    target_include_directories(${name} PRIVATE src)
    target_link_libraries(${name} PRIVATE $<TARGET_NAME_IF_EXISTS:test_support> ${FOLDERS} PkgConfig::CMOCKA)
endforeach()

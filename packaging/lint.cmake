# Targets for people and ./check: `format` rewrites, `format-check` only looks; cppcheck and clang-tidy read the whole program.
file(GLOB_RECURSE all_c CONFIGURE_DEPENDS src/*.c src/*.h include/*.h tests/*.c tests/*.h)
file(GLOB_RECURSE program_c CONFIGURE_DEPENDS src/*.c)
find_program(CLANG_FORMAT NAMES clang-format)
find_program(CPPCHECK NAMES cppcheck)
find_program(CLANG_TIDY NAMES clang-tidy)
if(CLANG_FORMAT)
    add_custom_target(format COMMAND ${CLANG_FORMAT} -i ${all_c} VERBATIM)
    add_custom_target(format-check COMMAND ${CLANG_FORMAT} --dry-run -Werror ${all_c} VERBATIM)
endif()
if(CPPCHECK)
    add_custom_target(cppcheck COMMAND ${CPPCHECK} --quiet --std=c11 --error-exitcode=1 --inline-suppr
        --enable=warning,performance,portability --suppress=missingIncludeSystem --suppress=normalCheckLevelMaxBranches
        -D_GNU_SOURCE -I${CMAKE_SOURCE_DIR}/include -j2 ${program_c} VERBATIM)
endif()
if(CLANG_TIDY)
    add_custom_target(clang-tidy COMMAND ${CLANG_TIDY} --quiet -p ${CMAKE_BINARY_DIR} ${program_c} VERBATIM)
endif()

# libculvert-gateway: the gateway of include/culvert.h for other programs, shared and static. The objects are the program's own. Of
# either library nothing but the functions of that header can be seen: the shared one has a list of them, the static one is a single
# object in which every other name was made local, so that none of ours meets one of the program's.
set(GATEWAY_OBJECTS $<FILTER:$<TARGET_OBJECTS:app>,INCLUDE,/culvert[a-z_]*\\.c\\.o$>)
set(GATEWAY_MAP ${CMAKE_SOURCE_DIR}/packaging/library.map)

add_library(gateway SHARED ${GATEWAY_OBJECTS})
target_link_libraries(gateway PRIVATE app)
target_link_options(gateway PRIVATE -Wl,--version-script=${GATEWAY_MAP} -Wl,--exclude-libs,ALL)
set_target_properties(gateway PROPERTIES OUTPUT_NAME culvert-gateway VERSION ${PROJECT_VERSION} SOVERSION 0 LINKER_LANGUAGE C
    LINK_DEPENDS ${GATEWAY_MAP})
target_include_directories(gateway INTERFACE $<BUILD_INTERFACE:${CMAKE_SOURCE_DIR}/include>)

set(archives ${FOLDERS})
list(TRANSFORM archives REPLACE "(.+)" "$<TARGET_FILE:\\1>")
add_custom_command(OUTPUT libculvert-gateway.a
    COMMAND ${CMAKE_C_COMPILER} -r -nostdlib -o gateway.o ${GATEWAY_OBJECTS} -Wl,--start-group ${archives} -Wl,--end-group
    COMMAND ${CMAKE_OBJCOPY} --localize-hidden gateway.o
    COMMAND ${CMAKE_COMMAND} -E rm -f libculvert-gateway.a
    COMMAND ${CMAKE_AR} rcs libculvert-gateway.a gateway.o
    DEPENDS ${FOLDERS} ${GATEWAY_OBJECTS} COMMAND_EXPAND_LISTS VERBATIM)
add_custom_target(gateway_static ALL DEPENDS libculvert-gateway.a)

# What a program that links the static one needs besides: as targets, and as words for pkg-config --static.
set(GATEWAY_NEEDS Threads::Threads m ${LIBEV} ${LIB_libmnl} ${LIB_mbedtls} ${LIB_libyaml})
set(GATEWAY_LIBS_PRIVATE "-lev -lmnl -lmbedtls -lmbedx509 -lmbedcrypto -lyaml -lm")
foreach(part IN ITEMS "jansson jansson" "libmicrohttpd microhttpd" "wslay wslay" "nghttp2 nghttp2" "pcre2 pcre2-8" "libmaxminddb maxminddb"
        "libcap-ng cap-ng" "libseccomp seccomp")
    separate_arguments(words UNIX_COMMAND "${part}")
    list(GET words 0 name)
    list(GET words 1 library)
    if(LIB_${name})
        list(APPEND GATEWAY_NEEDS ${LIB_${name}})
        string(APPEND GATEWAY_LIBS_PRIVATE " -l${library}")
    endif()
endforeach()

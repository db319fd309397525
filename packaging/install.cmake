# What `cmake --install` puts where: the program, libculvert with its headers, manual pages, completions, the unit, examples.
# A part whose tool or file is missing is left out and named at the end of the configuration.
include(GNUInstallDirs)
set(SYSTEMD_UNIT_DIR lib/systemd/system CACHE STRING "where the systemd unit goes; empty: nowhere")
set(DEFAULT_CONFIG ON CACHE BOOL "install config/culvert.yaml as the configuration of the machine")

install(TARGETS culvert RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR})

# libculvert is base and stack: the network stack alone, for other programs (docs/examples).
add_library(libculvert STATIC $<TARGET_OBJECTS:base> $<TARGET_OBJECTS:stack>)
set_target_properties(libculvert PROPERTIES OUTPUT_NAME culvert)
configure_file(packaging/libculvert.pc.in libculvert.pc @ONLY)
install(TARGETS libculvert ARCHIVE DESTINATION ${CMAKE_INSTALL_LIBDIR} COMPONENT dev)
install(FILES include/culvert/base.h include/culvert/stack.h DESTINATION ${CMAKE_INSTALL_INCLUDEDIR}/culvert COMPONENT dev)
install(FILES ${CMAKE_BINARY_DIR}/libculvert.pc DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig COMPONENT dev)

if(WITH_LIBRARY)
    configure_file(packaging/libculvert-gateway.pc.in libculvert-gateway.pc @ONLY)
    install(TARGETS gateway LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR} COMPONENT library NAMELINK_COMPONENT dev)
    install(FILES ${CMAKE_BINARY_DIR}/libculvert-gateway.a DESTINATION ${CMAKE_INSTALL_LIBDIR} COMPONENT dev)
    install(FILES include/culvert.h DESTINATION ${CMAKE_INSTALL_INCLUDEDIR} COMPONENT dev)
    install(FILES ${CMAKE_BINARY_DIR}/libculvert-gateway.pc DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig COMPONENT dev)
endif()

find_program(SCDOC NAMES scdoc)
if(SCDOC)
    foreach(page IN ITEMS culvert.1 culvert.yaml.5)
        string(REGEX REPLACE ".*\\." "" section ${page})
        add_custom_command(OUTPUT ${page} COMMAND ${SCDOC} < ${CMAKE_SOURCE_DIR}/docs/${page}.scd > ${page}
            DEPENDS docs/${page}.scd VERBATIM)
        list(APPEND pages ${CMAKE_BINARY_DIR}/${page})
        install(FILES ${CMAKE_BINARY_DIR}/${page} DESTINATION ${CMAKE_INSTALL_MANDIR}/man${section})
    endforeach()
    add_custom_target(manual ALL DEPENDS ${pages})
else()
    message(STATUS "no scdoc: the manual pages are left out")
endif()

install(FILES packaging/completions/culvert.bash DESTINATION ${CMAKE_INSTALL_DATADIR}/bash-completion/completions RENAME culvert)
install(FILES packaging/completions/_culvert DESTINATION ${CMAKE_INSTALL_DATADIR}/zsh/vendor-completions)
install(FILES packaging/completions/culvert.fish DESTINATION ${CMAKE_INSTALL_DATADIR}/fish/vendor_completions.d)

if(SYSTEMD_UNIT_DIR)
    file(READ packaging/systemd/culvert.service unit)
    string(REPLACE "=/usr/bin/culvert " "=${CMAKE_INSTALL_FULL_BINDIR}/culvert " unit "${unit}")
    file(WRITE ${CMAKE_BINARY_DIR}/culvert.service "${unit}")
    install(FILES ${CMAKE_BINARY_DIR}/culvert.service DESTINATION ${SYSTEMD_UNIT_DIR})
endif()
install(FILES config/desktop.yaml config/router.yaml packaging/systemd/process-rules.conf DESTINATION ${CMAKE_INSTALL_DOCDIR}/examples)
if(DEFAULT_CONFIG)
    install(FILES config/culvert.yaml DESTINATION ${CMAKE_INSTALL_FULL_SYSCONFDIR}/culvert
        PERMISSIONS OWNER_READ OWNER_WRITE GROUP_READ)
endif()

# `cpack -G RPM` in a build folder; the program alone, without what is of a component.
set(CPACK_INSTALL_CMAKE_PROJECTS "${CMAKE_BINARY_DIR};culvert;Unspecified;/")
set(CPACK_PACKAGE_NAME culvert)
set(CPACK_PACKAGE_CONTACT "The Culvert developers")
set(CPACK_PACKAGE_DESCRIPTION_SUMMARY "every packet of a TUN device through a proxy")
set(CPACK_PACKAGING_INSTALL_PREFIX /usr)
set(CPACK_RPM_PACKAGE_LICENSE MIT)
set(CPACK_RPM_PACKAGE_GROUP System/Networking)
set(CPACK_RPM_FILE_NAME RPM-DEFAULT)
set(CPACK_RPM_USER_FILELIST "%config(noreplace) %attr(640,root,culvert) /etc/culvert/culvert.yaml")
set(CPACK_RPM_PRE_INSTALL_SCRIPT_FILE ${CMAKE_SOURCE_DIR}/packaging/rpm/pre)
set(CPACK_RPM_EXCLUDE_FROM_AUTO_FILELIST_ADDITION /etc /usr/share/man/man1 /usr/share/man/man5 /usr/lib/systemd
    /usr/lib/systemd/system /usr/share/bash-completion /usr/share/bash-completion/completions /usr/share/zsh
    /usr/share/zsh/vendor-completions /usr/share/fish /usr/share/fish/vendor_completions.d)
include(CPack)

# bash completion of culvert: printed from the table of src/app/cli.c; tests/unit/test_cli_docs.c compares
# shellcheck shell=bash disable=SC2207
_culvert() {
    local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD - 1]}

    COMPREPLY=()
    if [[ $COMP_CWORD -eq 1 ]]; then
        COMPREPLY=($(compgen -W 'run exec serve demo check explain status cleanup connections reload select doctor help --version --help' -- "$cur"))
        return
    fi
    case $prev in
    --config | -c | --process | --api)
        COMPREPLY=($(compgen -f -- "$cur"))
        return
        ;;
    --net)
        COMPREPLY=($(compgen -W 'tcp udp icmp' -- "$cur"))
        return
        ;;
    --proxy | --src | --uid | --dns | --tun | --confirm | --listen | --drain | --root)
        :
        return
        ;;
    esac
    case ${COMP_WORDS[1]} in
    run)
        if [[ $cur == -* ]]; then
            COMPREPLY=($(compgen -W '--config -c --proxy --tun --dry-run --confirm --help' -- "$cur"))
        else
            COMPREPLY=($(compgen -W '' -- "$cur"))
        fi
        ;;
    exec)
        if [[ $cur == -* ]]; then
            COMPREPLY=($(compgen -W '--config -c --proxy --builtin --dns --help' -- "$cur"))
        else
            COMPREPLY=($(compgen -c -- "$cur"))
        fi
        ;;
    serve)
        if [[ $cur == -* ]]; then
            COMPREPLY=($(compgen -W '--config -c --listen --help' -- "$cur"))
        else
            COMPREPLY=($(compgen -W '' -- "$cur"))
        fi
        ;;
    demo)
        if [[ $cur == -* ]]; then
            COMPREPLY=($(compgen -W '--help' -- "$cur"))
        else
            COMPREPLY=($(compgen -W '' -- "$cur"))
        fi
        ;;
    check)
        if [[ $cur == -* ]]; then
            COMPREPLY=($(compgen -W '--help' -- "$cur"))
        else
            COMPREPLY=($(compgen -f -- "$cur"))
        fi
        ;;
    explain)
        if [[ $cur == -* ]]; then
            COMPREPLY=($(compgen -W '--config -c --net --src --uid --process --help' -- "$cur"))
        else
            COMPREPLY=($(compgen -W '' -- "$cur"))
        fi
        ;;
    status)
        if [[ $cur == -* ]]; then
            COMPREPLY=($(compgen -W '--flows --api --help' -- "$cur"))
        else
            COMPREPLY=($(compgen -W '' -- "$cur"))
        fi
        ;;
    cleanup)
        if [[ $cur == -* ]]; then
            COMPREPLY=($(compgen -W '--stopped --help' -- "$cur"))
        else
            COMPREPLY=($(compgen -W '' -- "$cur"))
        fi
        ;;
    connections)
        if [[ $cur == -* ]]; then
            COMPREPLY=($(compgen -W '--api --ended --help' -- "$cur"))
        else
            COMPREPLY=($(compgen -W '' -- "$cur"))
        fi
        ;;
    reload)
        if [[ $cur == -* ]]; then
            COMPREPLY=($(compgen -W '--api --drain --help' -- "$cur"))
        else
            COMPREPLY=($(compgen -W '' -- "$cur"))
        fi
        ;;
    select)
        if [[ $cur == -* ]]; then
            COMPREPLY=($(compgen -W '--api --help' -- "$cur"))
        else
            COMPREPLY=($(compgen -W '' -- "$cur"))
        fi
        ;;
    doctor)
        if [[ $cur == -* ]]; then
            COMPREPLY=($(compgen -W '--root --help' -- "$cur"))
        else
            COMPREPLY=($(compgen -W '' -- "$cur"))
        fi
        ;;
    esac
}
complete -o filenames -F _culvert culvert

"""The completions of the three shells, with ``@places@`` that ``completion`` fills."""

from __future__ import annotations

# A shell that hangs because vigild does would be worse than no names.
ASK = 'timeout 2 %s --format json 2>/dev/null | sed -n \'s/^    "%s": "\\(.*\\)",$/\\1/p\''

BASH = r"""# bash completion of vigil: eval "$(vigil completion bash)"

_vigil_services() { @services@; }
_vigil_changes() { @changes@; }

_vigil() {
    local cur=${COMP_WORDS[COMP_CWORD]} word value='' place='' only='' words='' kind=-W count=0 i
    local -a to=("$1")
    COMPREPLY=()
    for ((i = 1; i < COMP_CWORD; i++)); do
        word=${COMP_WORDS[i]}
        if [[ $value ]]; then
            [[ $word == = ]] && continue # --format=json is three words to bash
            [[ $value == --socket ]] && to+=(--socket "$word")
            value=
        elif [[ ! $only && $word == -- ]]; then
            only=1
        elif [[ ! $only && $word == -* ]]; then
            case $word in
                @valued@) value=$word ;;
            esac
        elif [[ ! $place ]]; then
            place=$word
        elif ((count == 0)) && [[ @pairs@ == *"|$place $word|"* ]]; then
            place+=" $word"
        else
            count=$((count + 1))
        fi
    done
    [[ $cur == = ]] && cur=
    if [[ $value == --socket ]]; then
        kind=-f
    elif [[ $value == --format ]]; then
        case $place in
@formats@
        esac
    elif [[ $value ]]; then
        return
    elif [[ ! $only && $cur == -* ]]; then
        words='@general@'
        case $place in
@options@
        esac
    else
        case "$place $count" in
@spots@
        esac
    fi
    if [[ $kind == -W ]]; then
        mapfile -t COMPREPLY < <(compgen -W "$words" -- "$cur")
    else
        compopt -o filenames 2>/dev/null
        mapfile -t COMPREPLY < <(compgen $kind -- "$cur")
    fi
}

complete -F _vigil vigil
"""

ZSH = r"""#compdef vigil
# zsh completion of vigil: eval "$(vigil completion zsh)" after compinit, or in a file _vigil in $fpath

_vigil_services() { @services@ }
_vigil_changes() { @changes@ }

_vigil() {
    local word value= place= only= count=0 found=1 i
    local -a to=($words[1]) list
    for ((i = 2; i < CURRENT; i++)); do
        word=${(Q)words[i]}
        if [[ -n $value ]]; then
            [[ $value == --socket ]] && to+=(--socket $word)
            value=
        elif [[ -z $only && $word == -- ]]; then
            only=1
        elif [[ -z $only && $word == -* ]]; then
            case $word in
                (@valued@) value=$word ;;
                (--socket=*) to+=($word) ;;
            esac
        elif [[ -z $place ]]; then
            place=$word
        elif ((count == 0)) && [[ @pairs@ == *"|$place $word|"* ]]; then
            place+=" $word"
        else
            ((count++))
        fi
    done
    if [[ -z $value && -z $only && $words[CURRENT] == --*=* ]]; then
        value=${words[CURRENT]%%=*}
        compset -P '*='
    fi
    if [[ $value == --socket ]]; then
        _files
        return
    elif [[ $value == --format ]]; then
        case $place in
@formats@
        esac
        compadd -a list
        return
    elif [[ -n $value ]]; then
        return 1
    elif [[ -z $only && $words[CURRENT] == -* ]]; then
        list=(@general@)
        case $place in
@options@
        esac
        _describe -o option list
        return
    fi
    case "$place $count" in
@spots@
    esac
    return found
}

if [[ $funcstack[1] == _vigil ]]; then
    _vigil "$@"
else
    compdef _vigil vigil
fi
"""

FISH = r"""# fish completion of vigil: vigil completion fish | source

function __vigil_at -d 'Whether the command so far, with the number of words after it, matches'
    set -l tokens (commandline -opc)
    set -l value
    set -l place
    set -l only
    set -l count 0
    for word in $tokens[2..]
        if test -n "$value"
            set value
            continue
        else if test -z "$only"
            switch $word
                case --
                    set only 1
                    continue
                case @valued@
                    set value $word
                    continue
                case '-*'
                    continue
            end
        end
        if test -z "$place"
            set place $word
        else if test $count -eq 0; and contains -- "$place $word" @pairs@
            set place "$place $word"
        else
            set count (math $count + 1)
        end
    end
    string match -qr -- '^(?:'$argv[1]')$' "$place $count"
end

function __vigil_ask
    set -l tokens (commandline -opc)
    set -l to $tokens[1] (string match -- '--socket=*' $tokens)
    set -l at (contains -i -- --socket $tokens)
    and set -a to --socket $tokens[(math $at + 1)]
    switch $argv[1]
        case services
            @services@
        case changes
            @changes@
    end
end

complete -c vigil -f
@lines@
"""

# Sourced by the demo scripts: what they need and build, and how they show the proof of an incident.

demo_needs() {
    need_cargo
    need_build
    need_tshark "shows that stock Wireshark reads the captures"
}

demo_build() {
    echo "Building (${PROFILE:-release})"
    build -p referee -p wiregen
    PATH="$(programs_directory):$PATH"
}

# Shows a command, then runs it.
run() {
    printf '\n$ %s\n' "$*"
    "$@"
}

# tshark greets root with a warning on every call: what it says on standard error is shown only if it fails.
tshark() {
    command tshark "$@" 2>errors || { cat errors >&2; return 1; }
}

# The first "NAME":"VALUE" of the JSON lines on standard input.
first() {
    grep -o "\"$1\":\"[^\"]*\"" | sed -n "1{s/.*:\"//;s/\"//;p}"
}

# show_proof KIND: gets the packets of the first incident of that kind (if none was found, of any kind) out of
# ./store, and lets tshark tell what is in them.
show_proof() {
    local incident kind stream flow packets
    incident=$(grep "\"kind\":\"$1\"" incidents.jsonl | first id || true)
    [ -n "$incident" ] || incident=$(first id <incidents.jsonl)
    kind=$(grep "\"id\":\"$incident\"" incidents.jsonl | first kind)

    printf '\nThe proof of one of them, %s, as a capture file of its own:\n' "$kind"
    run referee captures get --store store --incident "$incident" -w "$kind.pcapng"

    printf '\nWhat stock Wireshark makes of that file. The conversations in it:\n'
    run tshark -n -r "$kind.pcapng" -q -z conv,tcp

    stream=$(tshark -n -r "$kind.pcapng" -Y frame.comment -T fields -e tcp.stream | sed -n 1p)
    flow="tcp.stream==$stream"
    printf '\nThe first of them, from its handshake (long before anybody knew) to its end:\n'
    run tshark -n -t r -r "$kind.pcapng" -Y "$flow" >packets
    sed -n '1,/^\$/p' packets
    sed -i '1,/^\$/d' packets
    packets=$(wc -l <packets)
    if [ "$packets" -gt 12 ]; then
        sed -n 1,5p packets
        printf '      … %d more …\n' $((packets - 9))
        tail -n 4 packets
    else
        cat packets
    fi | cut -c1-130

    printf '\nThe comments Wireshark shows with its packets:\n\n'
    tshark -n -r "$kind.pcapng" -Y "$flow && frame.comment" -T fields -E aggregator='|' \
        -e frame.number -e frame.comment |
        sed 's/\t/\t\n/; s/|referee verdict/\nreferee verdict/g; s/\\n/\n/g' |
        sed 's/^\([0-9]*\)\t$/packet \1:/' | fold -s -w 110
}

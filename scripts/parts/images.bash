# Container images of static programs, packed without a container engine.

images_module=$tree/testbed/images
# Built for the pods (and, pause, for the nodes); `archive` runs here.
images_names=(pause echo)

images_directory=$cache/images/$(
    fingerprint "${images_names[*]}" "$images_module/go.mod" "$images_module"/*/*.go
)

images_where() {
    printf 'images=%s\n' "$images_directory"
}

images_missing() {
    local name
    for name in "${images_names[@]}"; do
        [[ -f $images_directory/$name.tar && -x $images_directory/$name ]] || printf 'images: %s\n' "$name"
    done
}

images_setup() {
    local name
    use_go
    go_build "$images_module" ./archive "$images_directory/archive"
    for name in "${images_names[@]}"; do
        go_build "$images_module" "./$name" "$images_directory/$name"
        "$images_directory/archive" "localhost/$name:1" "$images_directory/$name" "$images_directory/$name.tar.partial"
        mv -- "$images_directory/$name.tar.partial" "$images_directory/$name.tar"
    done
}

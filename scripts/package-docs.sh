#!/usr/bin/env bash
# The pages as the package has them, below FOLDER: at the places they have in the sources, so that what refers to each other
# finds each other. What is not packaged (sources, tests) is named and not linked to.
set -euo pipefail
folder=$(realpath -m "${1:?usage: scripts/package-docs.sh FOLDER}")
cd "$(dirname "$0")/.."

rm -rf "$folder"
for file in README.md docs/ rules/cookbook/ rules/library/ packaging/referee.service tools/referee/src/api/openapi.json; do
    mkdir -p "$folder/$(dirname "$file")"
    cp -r "$file" "$folder/$(dirname "$file")/"
done

find "$folder" -name '*.md' -print0 | xargs -0 perl -e '
    use strict; use warnings; use File::Basename;
    local $/;
    # Debian has these under names of its own.
    my %elsewhere = ("CHANGELOG.md" => "changelog.gz", "LICENSE-MIT" => "copyright", "LICENSE-APACHE" => "copyright");
    for my $page (@ARGV) {
        open my $in, "<", $page or die "$page: $!";
        my $text = <$in>;
        my $link = sub {
            my ($words, $target) = @_;
            return "[$words]($target)" if $target =~ m{^([a-z]+:|#)};
            return "[$words]($elsewhere{$target})" if $elsewhere{$target};
            my $path = $target =~ s/#.*//r;
            return -e dirname($page) . "/$path" ? "[$words]($target)" : $words;
        };
        $text =~ s/(?<!!)\[((?:[^\[\]]|\[[^\]]*\])*)\]\(([^)\s]+)\)/$link->($1, $2)/ge;
        open my $out, ">", $page or die "$page: $!";
        print $out $text;
    }'

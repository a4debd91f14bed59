#!/bin/sh
# Takes the four programs of 2009 out of a saved copy of the mail that posted them ("[RFC v13][PATCH 02/14]
# Checkpoint/restart: initial documentation") and builds them unchanged. They are other people's code, so the
# repository does not hold them.
#
#   samples/originals.sh MAIL DIR CRSHIM
#
# MAIL may be the raw message, a patch made by git, or the page of a mail archive saved as text or HTML: all that
# is looked at is the hunk of each file, whose header says how many lines must follow.
set -eu

mail=${1:-} dir=${2:-} crshim=${3:-}
if [ -z "$mail" ] || [ -z "$dir" ] || [ -z "$crshim" ]; then
    echo 'usage: make samples-original SEED=FILE [OUT=DIR], where FILE is a saved copy of the mail of 27 January 2009' >&2
    exit 2
fi
[ -r "$mail" ] || { echo "originals: cannot read $mail" >&2; exit 1; }
mkdir -p "$dir"

# unescape undoes what an archive page does to a patch. A raw patch holds no "&lt;" and is left alone.
unescape() {
    if grep -q '#include &lt;' "$1"; then
        sed -e 's/&lt;/</g' -e 's/&gt;/>/g' -e 's/&quot;/"/g' -e "s/&#39;/'/g" -e 's/&amp;/\&/g' "$1"
    else
        cat "$1"
    fi | tr -d '\r'
}

for name in ckpt rstr self test; do
    unescape "$mail" | awk -v file="Documentation/checkpoint/$name.c" '
        $1 == "+++" { here = ($2 == "b/" file); next }
        here && /^@@ -0,0 \+1,[0-9]+ @@/ { split($3, count, ","); left = count[2]; found = 1; next }
        left > 0 && /^\+/ { print substr($0, 2); left--; next }
        left > 0 { exit }
        END { exit !(found && left == 0) }
    ' >"$dir/$name.c" || {
        rm -f "$dir/$name.c"
        echo "originals: $mail does not hold the whole of Documentation/checkpoint/$name.c" >&2
        exit 1
    }
    "$crshim" cc -o "$dir/$name" "$dir/$name.c" -lm
done
echo "$dir: ckpt rstr self test"

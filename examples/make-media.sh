#!/usr/bin/env bash
# Makes the sample media in examples/media/: three animated GIFs, a pond picture as PNG, JPEG and WebP, a chord (MP3),
# two short videos (MP4 and WebM) and an empty file. Three more files there are written by hand and only checked for:
# index.html (the gallery), logo.svg and captions.vtt (the captions of clip.mp4).
#
# Needs these Debian packages: ffmpeg imagemagick librsvg2-bin fonts-dejavu-core
# Usage: examples/make-media.sh    (no arguments; takes about ten seconds)
#
# Nothing here is random, and no file carries a date or the version of an encoder, so one set of tool versions makes the
# same bytes each time. Other versions, or another kind of processor, may make slightly different ones.
set -euo pipefail
export LC_ALL=C

readonly MOST_BYTES=3000000 # for the whole folder
readonly FONT=/usr/share/fonts/truetype/dejavu/DejaVuSansMono.ttf

fail() {
    printf 'make-media.sh: %s\n' "$1" >&2
    exit 1
}

[[ $# -eq 0 ]] || fail 'takes no arguments'
for tool in ffmpeg convert rsvg-convert; do
    command -v "$tool" >/dev/null ||
        fail "$tool not found: apt-get install ffmpeg imagemagick librsvg2-bin fonts-dejavu-core"
done
[[ $(convert -version 2>/dev/null || true) == *ImageMagick* ]] ||
    fail 'convert is not ImageMagick: apt-get install imagemagick'
[[ -r $FONT ]] || fail "$FONT not found: apt-get install fonts-dejavu-core"

here=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd)
readonly media=$here/media
mkdir -p "$media"
for name in index.html logo.svg captions.vtt; do
    [[ -s $media/$name ]] || fail "examples/media/$name is missing; it is written by hand: restore it with git"
done

work=$(mktemp -d)
trap 'rm -rf -- "$work"' EXIT

ff() { ffmpeg -hide_banner -nostdin -loglevel error -y "$@"; }
readonly -a PLAIN=(-map_metadata -1 -map_chapters -1 -fflags +bitexact -flags:v +bitexact -flags:a +bitexact)

# gif OUTPUT COLOURS DITHER INPUT-ARGUMENTS...: the input's frames as one endless GIF with a palette of its own.
gif() {
    local out=$1 colours=$2 dither=$3
    shift 3
    ff "$@" -filter_complex \
        "[0:v]split[a][b];[a]palettegen=max_colors=$colours:reserve_transparent=0:stats_mode=full[p];
         [b][p]paletteuse=dither=$dither:diff_mode=rectangle" \
        "${PLAIN[@]}" -loop 0 "$media/$out"
}

echo 'pictures'

# The pond at dusk: the land is drawn twice, as it is and upside down in the water. What stands in front is a layer of its
# own, so that the video can move the water behind it.
cat >"$work/back.svg" <<'SVG'
<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" width="960" height="540" viewBox="0 0 960 540">
  <defs>
    <linearGradient id="sky" x1="0" y1="0" x2="0" y2="1">
      <stop offset="0" stop-color="#0b1f3f"/>
      <stop offset=".45" stop-color="#24507f"/>
      <stop offset=".8" stop-color="#7fa3b8"/>
      <stop offset="1" stop-color="#f2cfa0"/>
    </linearGradient>
    <linearGradient id="water" x1="0" y1="0" x2="0" y2="1">
      <stop offset="0" stop-color="#d3b692"/>
      <stop offset=".16" stop-color="#6a92ac"/>
      <stop offset=".5" stop-color="#234f7d"/>
      <stop offset="1" stop-color="#08172f"/>
    </linearGradient>
    <radialGradient id="glow">
      <stop offset="0" stop-color="#fff3d6" stop-opacity=".75"/>
      <stop offset=".35" stop-color="#fbe3b4" stop-opacity=".28"/>
      <stop offset="1" stop-color="#fbe3b4" stop-opacity="0"/>
    </radialGradient>
    <linearGradient id="far" x1="0" y1="0" x2="0" y2="1">
      <stop offset="0" stop-color="#2f5b80"/>
      <stop offset="1" stop-color="#7f97a0"/>
    </linearGradient>
    <linearGradient id="near" x1="0" y1="0" x2="0" y2="1">
      <stop offset="0" stop-color="#12304f"/>
      <stop offset="1" stop-color="#2a4a60"/>
    </linearGradient>
    <g id="land">
      <path fill="url(#far)" d="M0 280V206C90 172 150 196 230 214S380 236 470 218 640 168 740 186 890 222 960 196V280Z"/>
      <path fill="url(#near)" d="M0 280V232C60 214 130 226 210 248S360 272 450 274 620 276 700 262 850 214 960 226V280Z"/>
      <g fill="#0e2742">
        <path d="M786 262V222l33-27 33 27v40zM845 214V190h9v33z"/>
        <path d="M872 266l14-66 14 66zM893 266l17-88 17 88zM921 266l13-56 13 56zM30 272l15-72 15 72zM54 272l12-52 12 52zM4 272l14-58 14 58z"/>
        <path d="M760 280c0-14 40-22 100-22h100v22zM0 280v-16c60 0 120 6 134 16z"/>
      </g>
      <path fill="#ffd98a" d="M804 232h9v12h-9zM825 232h9v12h-9z"/>
    </g>
  </defs>
  <rect width="960" height="280" fill="url(#sky)"/>
  <g fill="#fff" opacity=".75">
    <circle cx="84" cy="58" r="1.4"/><circle cx="172" cy="104" r="1"/><circle cx="236" cy="36" r="1.6"/>
    <circle cx="318" cy="84" r="1"/><circle cx="402" cy="42" r="1.2"/><circle cx="468" cy="112" r="1"/>
    <circle cx="716" cy="50" r="1.5"/><circle cx="792" cy="112" r="1"/><circle cx="858" cy="62" r="1.2"/>
    <circle cx="914" cy="128" r="1"/><circle cx="130" cy="150" r="1"/><circle cx="372" cy="136" r="1"/>
  </g>
  <circle cx="580" cy="118" r="150" fill="url(#glow)"/>
  <circle cx="580" cy="118" r="34" fill="#fff6e0"/>
  <use xlink:href="#land"/>
  <rect y="280" width="960" height="260" fill="url(#water)"/>
  <g opacity=".5"><use xlink:href="#land" transform="translate(0 492.8) scale(1 -.76)"/></g>
  <g fill="#fff1cf">
    <ellipse cx="580" cy="292" rx="58" ry="1.6" opacity=".65"/><ellipse cx="586" cy="304" rx="44" ry="1.8" opacity=".6"/>
    <ellipse cx="574" cy="318" rx="52" ry="2" opacity=".55"/><ellipse cx="588" cy="334" rx="36" ry="2.2" opacity=".5"/>
    <ellipse cx="576" cy="352" rx="44" ry="2.4" opacity=".45"/><ellipse cx="584" cy="374" rx="30" ry="2.6" opacity=".4"/>
    <ellipse cx="578" cy="400" rx="34" ry="2.8" opacity=".32"/><ellipse cx="582" cy="430" rx="22" ry="3" opacity=".25"/>
    <ellipse cx="579" cy="464" rx="18" ry="3" opacity=".18"/>
  </g>
  <g fill="none" stroke="#d9ecf5">
    <ellipse cx="292" cy="424" rx="20" ry="5" stroke-width="2" opacity=".65"/>
    <ellipse cx="292" cy="425" rx="54" ry="14" stroke-width="1.8" opacity=".45"/>
    <ellipse cx="292" cy="426" rx="98" ry="26" stroke-width="1.5" opacity=".3"/>
    <ellipse cx="292" cy="428" rx="152" ry="41" stroke-width="1.2" opacity=".18"/>
    <path d="M40 318h120M200 338h90M690 322h84M820 344h110M640 388h70M400 360h64M60 372h70M850 402h84" opacity=".2"/>
  </g>
</svg>
SVG
cat >"$work/front.svg" <<'SVG'
<svg xmlns="http://www.w3.org/2000/svg" width="960" height="540" viewBox="0 0 960 540">
  <g fill="#1d5a55">
    <path d="M742 458l58 4c4 12-24 20-58 20s-62-10-62-22 28-22 62-22 46 6 54 12z"/>
    <path fill="#246a5f" d="M836 488l-46-8c-8 12 16 24 48 25s58-8 58-19-26-20-56-20c-24 0-40 4-46 10z"/>
    <path fill="#174a4a" d="M652 500l40 4c2 9-18 14-42 14s-44-7-44-16 20-15 44-15 34 4 38 9z"/>
  </g>
  <g fill="#f6dbe2">
    <path d="M738 456c-14-4-20-12-20-20 9 1 15 6 18 12-2-10 0-18 6-24 6 6 8 14 6 24 3-6 9-11 18-12 0 8-6 16-20 20z"/>
    <circle cx="742" cy="450" r="4" fill="#f7cf6b"/>
  </g>
  <g fill="none" stroke="#061326" stroke-width="4" stroke-linecap="round">
    <path d="M24 540C26 470 30 420 44 366M48 540C48 480 54 440 70 392M4 540C6 490 4 450 0 410M74 540c0-36 6-66 18-96M98 540c0-24 4-48 14-66"/>
  </g>
  <g fill="#3a2a22">
    <rect x="39" y="346" width="9" height="34" rx="4" transform="rotate(12 44 362)"/>
    <rect x="66" y="374" width="8" height="30" rx="4" transform="rotate(16 70 388)"/>
  </g>
</svg>
SVG
for layer in back front; do
    rsvg-convert --format png --output "$work/$layer.png" "$work/$layer.svg"
done
convert "$work/back.png" "$work/front.png" -composite "$work/pond.png"
readonly -a STRIP=(-alpha off -strip)
convert "$work/pond.png" "${STRIP[@]}" -depth 8 -define png:exclude-chunks=all -define png:compression-level=9 \
    -define png:color-type=2 "$media/pond.png"
convert "$work/pond.png" "${STRIP[@]}" -sampling-factor 4:2:0 -quality 86 "$media/pond.jpg"
convert "$work/pond.png" "${STRIP[@]}" -quality 82 -define webp:method=6 "$media/pond.webp"

echo 'mill wheel'

# 48 frames of an eight-spoked wheel. It turns by 45 degrees in all, the water runs on by whole dashes and the rings by
# their distance, so the last frame leads back to the first.
read -r -d '' paddles <<'SVG' || true
<g id="quarter"><path fill="#a06c3f" d="M-3.500-86h7V0h-7z"/><path fill="#c89058" d="M-3-106h6v26h-6z"/><path fill="#b57c48" d="M-3-106h6v26h-6z" transform="rotate(22.500)"/></g>
SVG
for angle in 45 90 135 180 225 270 315; do
    paddles+="<use xlink:href=\"#quarter\" transform=\"rotate($angle)\"/>"
done
read -r -d '' wheel <<'SVG' || true
<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" width="480" height="270" viewBox="0 0 480 270">
  <defs>
    <linearGradient id="sky" x1="0" y1="0" x2="0" y2="1"><stop offset="0" stop-color="#12305a"/><stop offset="1" stop-color="#6f9bb5"/></linearGradient>
    <linearGradient id="water" x1="0" y1="0" x2="0" y2="1"><stop offset="0" stop-color="#3f7399"/><stop offset="1" stop-color="#0d2444"/></linearGradient>
  </defs>
  <path fill="url(#sky)" d="M0 0h480v224H0z"/>
  <path fill="#2b5474" d="M0 224v-66c50-22 90-12 140 6s110 20 180 8v52z"/>
  <path fill="#1e4160" d="M0 224v-34c60-14 120 0 180 14s90 12 140 8v12z"/>
  <path fill="#33475c" d="M318 86h162v138H318z"/>
  <path fill="#3d546b" d="M326 100h40v16h-40zM374 100h58v16h-58zM440 100h40v16h-40zM318 124h26v16h-26zM352 124h40v16h-40zM462 124h18v16h-18zM326 148h50v16h-50zM462 148h18v16h-18zM318 172h40v16h-40zM366 172h44v16h-44zM454 172h26v16h-26zM334 196h56v16h-56zM398 196h40v16h-40zM446 196h34v16h-34z"/>
  <path fill="#202f42" d="M304 90L366 26h114v64z"/>
  <path fill="#ffd98a" d="M408 124h36v40h-36z"/>
  <path fill="none" stroke="#202f42" stroke-width="4" d="M426 124v40M408 144h36M406 122h40v44h-40z"/>
  <path fill="#5b3a22" d="M226 132h96v16h-96z"/>
  <path fill="#4a3426" d="M40 46h8v178h-8zM130 46h8v178h-8zM48 110l82-60 4 6-86 62z"/>
  <g transform="translate(226 140) rotate(@ANGLE@)">
    @PADDLES@
    <circle r="86" fill="none" stroke="#84552f" stroke-width="8"/>
    <circle r="62" fill="none" stroke="#74492a" stroke-width="5"/>
    <circle r="16" fill="#5b3a22"/><circle r="6" fill="#d9a86c"/>
  </g>
  <path fill="#6b4a30" d="M0 24h236v8H0z"/>
  <path fill="#8fc3de" d="M0 17h236v8H0z"/>
  <path fill="none" stroke="#8fc3de" stroke-width="11" d="M232 21C300 20 330 80 332 230"/>
  <path fill="none" stroke="#e4f4fb" stroke-width="3" stroke-dasharray="14 18" stroke-dashoffset="@FLOW@" d="M0 21H232C300 20 330 80 332 230"/>
  <path fill="#5a3d27" d="M0 25h232v13H0z"/>
  <path fill="url(#water)" d="M0 222h480v48H0z"/>
  <path fill="#74492a" opacity=".35" d="M160 224c10 30 122 30 132 0z"/>
  <path fill="#ffd98a" opacity=".3" d="M410 226h32v20h-32z"/>
  <g fill="none" stroke="#d9eff9" stroke-width="2">@RINGS@</g>
  <ellipse cx="332" cy="228" rx="17" ry="5" fill="#e4f4fb"/>
</svg>
SVG
for ((f = 0; f < 48; f++)); do
    printf -v angle '%d.%04d' $((f * 9375 / 10000)) $((f * 9375 % 10000))
    rings=
    for lag in 0 16 32; do
        age=$(((f + lag) % 48))
        printf -v ring '<ellipse cx="332" cy="230" rx="%d" ry="%d.%d" opacity="0.%03d"/>' \
            $((18 + age * 2)) $((5 + age / 3)) $((age % 3 * 3)) $(((48 - age) * 15))
        rings+=$ring
    done
    frame=${wheel//@ANGLE@/$angle}
    frame=${frame//@PADDLES@/$paddles}
    frame=${frame//@FLOW@/-$((f * 2))}
    printf '%s\n' "${frame//@RINGS@/$rings}" >"$work/wheel.svg"
    printf -v number '%02d' "$f"
    rsvg-convert --format png --output "$work/wheel-$number.png" "$work/wheel.svg"
done
readonly -a WHEEL=(-framerate 24 -i "$work/wheel-%02d.png")

echo 'GIFs'

# Two rings of waves that cross; twelve frames make one period.
wave='(0.5+0.25*(sin(hypot(X-50,(Y-44)*1.3)/4-2*PI*N/12)+sin(hypot(X-112,(Y-78)*1.3)/4-2*PI*N/12)))'
gif ripple.gif 8 none -f lavfi -i "color=s=160x120:r=10:d=1.2,format=gbrp,
geq=r='18+70*pow($wave,2)':g='48+140*$wave':b='90+130*$wave'"

# Every second frame of the wheel, at half the rate.
ff "${WHEEL[@]}" -vf "select='not(mod(n,2))',setpts=N/12/TB,scale=432:243:flags=area" -r 12 "${PLAIN[@]}" "$work/small-%02d.png"
gif wheel.gif 128 none -framerate 12 -i "$work/small-%02d.png"

# A dive into the edge of the Mandelbrot set, drawn at twice the size and made smaller, which smooths it.
gif mandelbrot.gif 40 none -f lavfi -i "mandelbrot=s=512x384:r=12:maxiter=400:start_scale=2.6:end_scale=0.003:end_pts=32:
start_x=-0.743643887:start_y=-0.131825904:outer=normalized_iteration_count:inner=black,trim=end_frame=32,
scale=256:192:flags=area,format=gray,format=gbrp,lutrgb=r='10+pow(val/255,3)*245':g='24+pow(val/255,1.4)*210':b='60+val*0.6'"

echo 'sound'

# D major with its ninth, softly in and out. No ID3 tag of either version.
ff -f lavfi -i "aevalsrc='0.16*(sin(2*PI*146.83*t)+sin(2*PI*220*t)+0.8*sin(2*PI*293.66*t)+0.6*sin(2*PI*369.99*t)+0.35*sin(2*PI*659.26*t))*min(1,t*4)*exp(-0.35*t)*min(1,(5-t)*1.5)':s=44100:d=5" \
    -ac 2 -c:a libmp3lame -b:a 96k "${PLAIN[@]}" -id3v2_version 0 -write_id3v1 0 "$media/tone.mp3"

echo 'videos'

# The pond with moving water, a frame counter, the time, and a bar that fills up over the ten seconds; a struck note
# each second. A key frame each second (25 frames). No mbtree: its arithmetic differs from processor to processor.
sway="128+(1+Y/32)*sin(Y/(1.8+Y/40)-2*PI*N/25)"
ff -loop 1 -framerate 25 -t 10 -i "$work/back.png" -loop 1 -framerate 25 -t 10 -i "$work/front.png" \
    -f lavfi -i "color=c=0xffd98a:s=480x6:r=25:d=10" \
    -f lavfi -i "aevalsrc='0.4*sin(2*PI*t*(220+55*mod(floor(t)*3,5)))*exp(-5*mod(t,1))*min(1,mod(t,1)*200)':s=44100:d=10" \
    -filter_complex "
[0:v]scale=480:270:flags=area,format=gbrp,split[still][low];
[low]crop=480:130:0:140,split=3[water][x][y];
[x]geq=r='$sway':g='$sway':b='$sway'[aside];
[y]geq=r=128:g=128:b=128[level];
[water][aside][level]displace=edge=mirror[moving];
[1:v]scale=480:270:flags=area,format=gbrap[front];
[still][moving]overlay=0:140:format=gbrp[behind];
[behind][front]overlay=format=gbrp[pond];
[pond]drawbox=x=0:y=264:w=480:h=6:color=black@0.5:t=fill[dark];
[dark][2:v]overlay=x='-480+480*(n+1)/250':y=264,format=yuv420p,
drawtext=fontfile=$FONT:fontsize=20:fontcolor=white:box=1:boxcolor=0x08172f@0.7:boxborderw=6:x=14:y=14:text='%{eif\:floor(n/25)\:d\:2}.%{eif\:mod(n*4,100)\:d\:2} s',
drawtext=fontfile=$FONT:fontsize=20:fontcolor=white:box=1:boxcolor=0x08172f@0.7:boxborderw=6:x=w-tw-14:y=14:text='frame %{eif\:n\:d\:3}'[v]" \
    -map '[v]' -map 3:a \
    -c:v libx264 -profile:v main -level:v 3.0 -preset slow -crf 27 -threads:v 1 -mbtree 0 -pix_fmt yuv420p \
    -g 25 -keyint_min 25 -sc_threshold 0 -bf 2 -bsf:v filter_units=remove_types=6 \
    -c:a aac -b:a 64k -ac 1 "${PLAIN[@]}" -movflags +faststart "$media/clip.mp4"

# The mill wheel three times round its loop, with a frame counter and a low hum.
ff -stream_loop 2 "${WHEEL[@]}" \
    -f lavfi -i "aevalsrc='0.12*(sin(2*PI*110*t)+0.6*sin(2*PI*165*t))*(0.7+0.3*sin(2*PI*t*4))*min(1,t*4)*min(1,(6-t)*4)':s=48000:d=6" \
    -filter_complex "
[0:v]format=yuv420p,drawtext=fontfile=$FONT:fontsize=18:fontcolor=white:box=1:boxcolor=0x08172f@0.7:boxborderw=6:x=w-tw-14:y=14:text='frame %{eif\:n\:d\:3}'[v]" \
    -map '[v]' -map 1:a \
    -c:v libvpx-vp9 -crf 40 -b:v 0 -deadline good -cpu-used 4 -row-mt 0 -threads:v 1 -g 48 -pix_fmt yuv420p \
    -c:a libopus -b:a 32k -ac 1 "${PLAIN[@]}" "$media/clip.webm"

: >"$media/empty.txt"

total=0
while IFS= read -r -d '' file; do
    size=$(stat -c %s -- "$file")
    total=$((total + size))
    printf '%9d  %s\n' "$size" "${file#"$media/"}"
done < <(find "$media" -type f -print0 | sort -z)
printf '%9d  in all\n' "$total"
((total < MOST_BYTES)) || fail "examples/media/ holds $total bytes, and must stay under $MOST_BYTES"

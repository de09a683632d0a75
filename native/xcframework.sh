#!/bin/sh
# The C interface with the Metal backend as edgellm.xcframework: macOS, iOS and its simulator.
#   sh native/xcframework.sh OUTPUT_DIRECTORY
# Needs macOS with Xcode 15 or newer, cmake and ninja.
set -eu
test $# -eq 1 || { echo "usage: sh native/xcframework.sh OUTPUT_DIRECTORY" >&2; exit 2; }
out=$1
command -v xcodebuild >/dev/null || { echo "error: xcodebuild not found; install Xcode" >&2; exit 1; }
source=$(cd "$(dirname "$0")" && pwd)

# build NAME SYSTEM SDK OLDEST_OS
build() {
  cmake -S "$source" -B "$out/$1" -G Ninja -DCMAKE_BUILD_TYPE=Release \
    -DCMAKE_SYSTEM_NAME="$2" -DCMAKE_OSX_SYSROOT="$3" -DCMAKE_OSX_ARCHITECTURES=arm64 \
    -DCMAKE_SYSTEM_PROCESSOR=arm64 -DCMAKE_OSX_DEPLOYMENT_TARGET="$4" \
    -DEDGE_BUILD_METAL=ON -DEDGE_BUILD_SHARED=ON -DEDGE_APPLE_FRAMEWORK=ON
  cmake --build "$out/$1" --target edgellm
}
build macos Darwin macosx 13.0
build ios iOS iphoneos 16.0
build simulator iOS iphonesimulator 16.0

rm -rf "$out/edgellm.xcframework"
xcodebuild -create-xcframework \
  -framework "$out/macos/edgellm.framework" \
  -framework "$out/ios/edgellm.framework" \
  -framework "$out/simulator/edgellm.framework" \
  -output "$out/edgellm.xcframework"

#!/bin/bash
# Puts the agent into the initramfs, so that it can mark every write from before the first file
# system is mounted on. /usr/lib/dracut/modules.d/95landfall/

check() {
	require_binaries /usr/bin/landfall || return 1
	return 0
}

depends() {
	return 0
}

install() {
	inst /usr/bin/landfall
	inst_hook pre-mount 05 "$moddir/landfall-watch.sh"
	inst_hook pre-pivot 05 "$moddir/landfall-restore.sh"
}

//go:build nohashes

package pgarchive

// hashesContent is false in the build with which `make bench` measures what counting and
// hashing cost. Its archives say that there is no evidence.
const hashesContent = false

//go:build !nohashes

package pgarchive

// hashesContent: what passes is counted and hashed.
const hashesContent = true

// Package server runs the programs that tests and the demo talk to: a
// PostgreSQL cluster, S3 and GCS servers, a fault proxy and a pooler.
//
// Everything lives under one Home: a temporary directory with every server's
// data, and every server's process. Nothing outlives the program that opened
// the Home, however it ends: each child is told by the kernel when its parent
// dies, and a small process of its own session removes the directory when it
// sees the parent's end of a pipe close. Close does both at once and in order.
//
// PostgreSQL and PgBouncer refuse to run as root, so all servers run as an
// unprivileged user when the caller is root.
package server

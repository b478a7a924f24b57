// Package archiver holds pgstow's use cases: archive, restore, clone, list,
// show, cleanup and doctor, one a file, and what they store: the key layout,
// the manifest and the index. It is the only place where package dumper and
// package storage meet, and it knows no driver.
//
// An archive is a directory of objects whose manifest.json is written last;
// the manifest's presence is what makes the archive exist. docs/archive-layout.md
// describes every object field by field.
package archiver

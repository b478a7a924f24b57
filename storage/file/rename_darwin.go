package file

import (
	"path"

	"golang.org/x/sys/unix"
)

// renameNoReplace moves a file to a free name, for file systems without hard
// links.
func (b *Bucket) renameNoReplace(from, to string) error {
	source, err := b.root.Open(path.Dir(from))
	if err != nil {
		return err
	}
	defer source.Close()
	target, err := b.root.Open(path.Dir(to))
	if err != nil {
		return err
	}
	defer target.Close()
	return unix.RenameatxNp(int(source.Fd()), path.Base(from), int(target.Fd()), path.Base(to), unix.RENAME_EXCL)
}

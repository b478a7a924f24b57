//go:build !linux && !darwin

package file

import (
	"errors"
	"fmt"
)

// renameNoReplace has no safe form here: a plain rename replaces.
func (b *Bucket) renameNoReplace(from, to string) error {
	return fmt.Errorf("this file system has no hard links, which creating without replacing needs: %w", errors.ErrUnsupported)
}

package storagetest

func errorChecks() []check { return nil }

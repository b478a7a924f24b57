package storagetest

func headChecks() []check { return nil }

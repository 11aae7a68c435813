//go:build !race

package worker_test

const modelLives = 2000

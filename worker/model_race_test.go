//go:build race

package worker_test

// modelLives are fewer with the race detector, which makes them seven times as long.
const modelLives = 300

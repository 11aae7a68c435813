// Command bench measures propeller/apnsconn beside other senders of push
// notifications, on this machine, in one run, and prints one table.
//
// The neutral APNs side is nghttpd, of nghttp2: TLS, one worker thread, 1000
// streams. Each sender is a process of its own, so that what it costs can be
// told from its resource usage; the senders take turns round after round, and
// the table shows medians, so that whatever else the machine does hits all
// alike. The yardstick is nghttp2's own h2load.
//
// How a push travels here: main.go → run.go (whose turn it is) → child.go (the
// sender's process) → job.go (what is measured there) → load.go → one of
// apnsconn.go, apns2.go, clientconn.go. h2load has h2load.go.
package main

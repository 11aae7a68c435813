// A stand-in for APNs on Node's http2, for interop_test.go: an HTTP/2
// implementation that is not Go's.
//
//   node apns.js '{"key":…,"cert":…,"ca":…,"settings":{…},"window":…,"pieces":…}'
//
// key, cert and ca are PEM; a client certificate issued by ca is required.
// settings are the server's SETTINGS, window the connection's window, pieces the
// most bytes of body written at once. The port is printed on the first line.
// The end of standard input ends it.
'use strict';
const http2 = require('node:http2');

const {key, cert, ca, settings, window, pieces} = JSON.parse(process.argv[2]);

const server = http2.createSecureServer({
  key, cert, ca, requestCert: true, rejectUnauthorized: true, settings,
  paddingStrategy: pieces ? http2.constants.PADDING_STRATEGY_MAX : http2.constants.PADDING_STRATEGY_NONE,
});
server.on('session', (session) => {
  if (window) session.setLocalWindowSize(window);
});
server.on('stream', (stream, headers) => {
  const chunks = [];
  stream.on('data', (chunk) => chunks.push(chunk));
  stream.on('error', () => {}); // reset, by either side
  stream.on('end', () => answer(stream, headers, Buffer.concat(chunks)));
});
server.listen(0, '127.0.0.1', () => console.log(server.address().port));

process.stdin.resume();
process.stdin.on('end', () => process.exit());

// answer does what the end of the device token says.
function answer(stream, headers, payload) {
  const id = headers['apns-id'];
  const token = headers[':path'].slice('/3/device/'.length);
  if (headers[':method'] !== 'POST' || !headers['apns-topic']) {
    return respond(stream, 400, {reason: 'MissingTopic'}, id);
  }
  switch (token.slice(-4)) {
    case 'dead':
      return respond(stream, 410, {reason: 'Unregistered', timestamp: 1700000000000}, id);
    case '0103':
      stream.additionalHeaders({':status': 103, 'link': '</x>'});
      return respond(stream, 400, {reason: 'BadTopic'}, id, {'x-trailer': 'end'});
    case 'ef5d':
      return stream.close(http2.constants.NGHTTP2_REFUSED_STREAM);
    case 'abcd':
      return stream.close(http2.constants.NGHTTP2_INTERNAL_ERROR);
    case '60a1':
      respond(stream, 200, null, id);
      stream.session.goaway(0, stream.id, Buffer.from('{"reason":"Shutdown"}'));
      return stream.session.close();
  }
  try { // the payload says how long it is
    if (JSON.parse(payload).length === payload.length) return respond(stream, 200, null, id);
  } catch { /* answered below */ }
  respond(stream, 400, {reason: 'PayloadEmpty'}, id);
}

function respond(stream, status, body, id, trailers) {
  const text = body ? JSON.stringify(body) : '';
  const headers = {':status': status, 'apns-id': id || 'none'};
  if (text && !trailers) headers['content-length'] = text.length;
  stream.respond(headers, {endStream: !text, waitForTrailers: Boolean(trailers)});
  if (trailers) stream.on('wantTrailers', () => stream.sendTrailers(trailers));
  if (!text) return;
  write(stream, text);
}

// write sends the body in pieces, each in a turn of its own so that each makes a frame.
function write(stream, text) {
  const n = pieces || text.length;
  if (text.length <= n) return stream.end(text);
  stream.write(text.slice(0, n), () => write(stream, text.slice(n)));
}

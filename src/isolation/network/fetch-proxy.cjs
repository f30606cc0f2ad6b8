/**
 * Preloaded into the Node of a machine when it is older than 22.21: from there on `fetch` itself goes through the
 * proxy that the environment names (NODE_USE_ENV_PROXY). Built-in `fetch` takes its connections from a dispatcher
 * in a well-known place; before the first use it gets one that opens tunnels. One that the app put there stays.
 */
const { request } = require('node:http');
const { connect } = require('node:net');
const { connect: connectTls } = require('node:tls');

const PLACE = Symbol.for('undici.globalDispatcher.1');
const LOCAL = new Set(['localhost', '127.0.0.1', '::1', '[::1]']);
const [major, minor] = process.versions.node.split('.').map(Number);
const { HTTPS_PROXY } = process.env;
const builtin = globalThis.fetch;

if (builtin !== undefined && HTTPS_PROXY && !(major >= 24 || (major === 22 && minor >= 21))) {
  let ready = false;
  globalThis.fetch = function fetch(...args) {
    if (!ready) usePlaces();
    ready = true;
    return builtin.apply(this, args);
  };
}

function usePlaces() {
  // Reading this loads what built-in fetch is made of, which puts its dispatcher in place.
  void globalThis.Response;
  const current = globalThis[PLACE];
  if (current?.constructor?.name === 'Agent') globalThis[PLACE] = new current.constructor({ connect: open });
}

function open({ hostname, protocol, port, servername }, done) {
  const secure = protocol === 'https:';
  const to = Number(port) || (secure ? 443 : 80);
  const finish = (socket) => {
    if (!secure) return done(null, socket);
    const name = servername || hostname;
    const tls = connectTls({ socket, servername: name, ALPNProtocols: ['http/1.1'] });
    tls.once('error', done).once('secureConnect', () => {
      tls.off('error', done);
      done(null, tls);
    });
  };
  if (LOCAL.has(hostname)) {
    const socket = connect(to, hostname.replace(/^\[|\]$/g, ''));
    socket.once('error', done).once('connect', () => {
      socket.off('error', done);
      finish(socket);
    });
    return;
  }
  const proxy = new URL(HTTPS_PROXY);
  const path = `${hostname}:${to}`;
  request({
    host: proxy.hostname,
    port: proxy.port,
    method: 'CONNECT',
    path,
    headers: { host: path },
    agent: false,
  })
    .once('error', done)
    .once('connect', (answer, socket) => {
      if (answer.statusCode === 200) return finish(socket);
      socket.destroy();
      done(new Error(`the proxy answered ${answer.statusCode} for ${path}; the log says why`));
    })
    .end();
}

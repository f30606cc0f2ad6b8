/**
 * Preloaded into the Node of an instance whose app asks for a port that it cannot have (KILN_PORT_DECLARED): a server that
 * is to listen there listens on the port that the instance was given (KILN_PORT_ASSIGNED), whatever the address. All other
 * ports and UDP stay as they are, and `server.address()` says what is true. Kept to what Node 10 understands: an error in
 * here would be the end of the app.
 */
// biome-ignore lint/style/useNodejsImportProtocol: Node 14 and before may not know it
const { Server, Socket } = require('net');

const declared = Number(process.env.KILN_PORT_DECLARED);
const assigned = Number(process.env.KILN_PORT_ASSIGNED);
const { listen } = Server.prototype;
const { connect } = Socket.prototype;

/** Once a server of this process has been moved, the port on loopback means that server, not the other version's. */
let moved = false;

if (declared > 0 && assigned > 0) {
  Server.prototype.listen = function (...args) {
    const elsewhere = withPort(args);
    if (elsewhere !== args) moved = true;
    return listen.apply(this, elsewhere);
  };
  Socket.prototype.connect = function (...args) {
    return connect.apply(this, moved ? toOwnServer(args) : args);
  };
}

/** Node takes the port as a number or a numeral, alone or in an object of options. */
function withPort(args) {
  const [first, ...rest] = args;
  if (isDeclared(first)) return [assigned, ...rest];
  if (first !== null && typeof first === 'object' && isDeclared(first.port))
    return [{ ...first, port: assigned }, ...rest];
  return args;
}

function isDeclared(port) {
  return (typeof port === 'number' || typeof port === 'string') && Number(port) === declared;
}

/** `net.connect` hands over the list that it has put in order; it stays the same list, as it carries a mark. */
function toOwnServer(args) {
  const [first, second] = args;
  if (Array.isArray(first)) {
    if (isLoopback(first[0].host)) [first[0]] = withPort(first);
    return args;
  }
  const options = first !== null && typeof first === 'object' ? first : { host: second };
  return isLoopback(options.host) ? withPort(args) : args;
}

function isLoopback(host) {
  return (
    typeof host !== 'string' || host === '' || /^(localhost|127\.\d+\.\d+\.\d+|0\.0\.0\.0|::1?)$/i.test(host)
  );
}

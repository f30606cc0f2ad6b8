import assert from 'node:assert/strict';
import { once } from 'node:events';
import { createServer } from 'node:net';
import { describe, it } from 'node:test';
import { listeningPorts, ownsPort, parseListening } from './sockets.ts';

const TABLE = `  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 111 1 0 100 0 0 10 0
   1: 0100007F:9C40 0100007F:1F90 01 00000000:00000000 00:00000000 00000000     0        0 112 1 0 20 4 30 10 -1
   2: 00000000000000000000000001000000:0BB8 00000000000000000000000000000000:0000 0A 0:0 00:0 0 0 0 113 1
   3: 0000000000000000FFFF00000100007F:0BB9 00000000000000000000000000000000:0000 0A 0:0 00:0 0 0 0 114 1
   4: B80D0120000000000000000001000000:0BBA 00000000000000000000000000000000:0000 0A 0:0 00:0 0 0 0 115 1
`;

describe('listening ports', () => {
  it('reads the kernel table: listening ones only, addresses in plain form', () => {
    assert.deepEqual(
      [...parseListening(TABLE)],
      [
        ['111', { address: '127.0.0.1', port: 8080 }],
        ['113', { address: '::1', port: 3000 }],
        ['114', { address: '127.0.0.1', port: 3001 }],
        ['115', { address: '2001:db8:0:0:0:0:0:1', port: 3002 }],
      ],
    );
  });

  it('finds the sockets of a process and of nobody else', async () => {
    const server = createServer().listen(0, '127.0.0.1');
    await once(server, 'listening');
    const { port } = server.address() as { port: number };
    assert.deepEqual(
      listeningPorts([process.pid]).filter((one) => one.port === port),
      [{ address: '127.0.0.1', port }],
    );
    assert.deepEqual(listeningPorts([]), []);
    assert.equal(ownsPort([process.pid], port), true);
    assert.equal(ownsPort([process.ppid], port), false);
    server.close();
    await once(server, 'close');
    assert.equal(ownsPort([process.pid], port), null, 'nobody listens');
  });
});

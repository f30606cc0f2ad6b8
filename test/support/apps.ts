/** Small apps written at test time. */
import { mkdir, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { tempDir } from './folders.ts';

export async function writeApp(files: Record<string, string>): Promise<string> {
  const dir = await tempDir('app');
  for (const [name, content] of Object.entries(files)) {
    await mkdir(path.dirname(path.join(dir, name)), { recursive: true });
    await writeFile(path.join(dir, name), content);
  }
  return dir;
}

export const staticSite = (text: string, more: Record<string, string> = {}) =>
  writeApp({
    'index.html': `<!doctype html><title>t</title><h1>${text}</h1>`,
    'style.css': 'h1 { color: red }',
    ...more,
  });

/** A server without dependencies: says `text` everywhere, and does what `extra` adds to its request handler. */
export const nodeServer = (text: string, extra = '', before = '') =>
  writeApp({
    'package.json': JSON.stringify({ name: 'app', version: '1.0.0', scripts: { start: 'node server.js' } }),
    'server.js': `const http = require('node:http');
${before}
http.createServer((req, res) => {
  ${extra}
  res.setHeader('content-type', 'text/plain');
  res.end(${JSON.stringify(text)});
}).listen(process.env.PORT, () => console.log('listening on', process.env.PORT));
`,
  });

/** Main.java: says how many security providers its settings name. */
export const JAVA_SERVER = `import com.sun.net.httpserver.HttpServer;
import java.net.InetSocketAddress;
import java.security.Security;
public class Main {
  public static void main(String[] args) throws Exception {
    HttpServer server = HttpServer.create(new InetSocketAddress(Integer.parseInt(System.getenv("PORT"))), 0);
    server.createContext("/", exchange -> {
      byte[] page = ("java with " + Security.getProviders().length + " providers").getBytes();
      exchange.sendResponseHeaders(200, page.length);
      exchange.getResponseBody().write(page);
      exchange.close();
    });
    server.start();
  }
}
`;

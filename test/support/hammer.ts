/** A visitor that never stops asking: what production must not notice is what this sees. */
import http from 'node:http';
import type { Client, Json } from './client.ts';

export interface Hammer {
  requests: number;
  /** Everything that was not a whole 200. */
  failures: string[];
  /** Bodies in the order they first came. */
  bodies: string[];
  stop(): Promise<void>;
}

export function hammer(client: Client, deployment: Json, path = '/', visitors = 4): Hammer {
  let running = true;
  const seen = new Set<string>();
  const agents = Array.from({ length: visitors }, () => new http.Agent({ keepAlive: true }));
  const state: Hammer = { requests: 0, failures: [], bodies: [], stop };
  const loops = agents.map(async (agent) => {
    while (running) {
      state.requests++;
      try {
        const answer = await client.get(deployment, path, { agent });
        if (answer.status !== 200) state.failures.push(`${answer.status} ${answer.body.slice(0, 200)}`);
        else if (!seen.has(answer.body)) {
          seen.add(answer.body);
          state.bodies.push(answer.body);
        }
      } catch (error) {
        state.failures.push(String(error));
      }
      // Leaves the two cores to the engine: it is a check of every request, not a load test.
      await new Promise((resolve) => setTimeout(resolve, 3));
    }
    agent.destroy();
  });
  async function stop(): Promise<void> {
    running = false;
    await Promise.all(loops);
  }
  return state;
}

/**
 * Secret values that this process has had in hand: whatever the engine says in its own log is redacted by them (I10). They
 * are noted where they become plain text, at the vault.
 */
import { looksSecret } from '../domain/env-var.ts';
import { makeRedactor, type Redactor } from '../domain/redact.ts';
import type { VersionEnv } from '../pipeline/version-env.ts';
import type { Vault } from '../store/vault.ts';

/** The last ones: looking for each takes time with every line. */
const REMEMBERED = 500;

export class KnownSecrets {
  /** In the order of their last use. */
  readonly #values = new Set<string>();
  #redactor: Redactor | null = null;

  add(...values: string[]): void {
    for (const value of values) {
      const is_new = !this.#values.delete(value);
      this.#values.add(value);
      if (is_new) this.#redactor = null;
    }
    for (const value of this.#values) {
      if (this.#values.size <= REMEMBERED) return;
      this.#values.delete(value);
    }
  }

  redact(text: string): string {
    this.#redactor ??= makeRedactor([...this.#values]);
    return this.#redactor.push(text) + this.#redactor.flush();
  }

  /** What is sealed and opened with the vault is noted on the way. */
  watch(vault: Vault): Vault {
    return {
      seal: (text, context) => {
        this.add(...secretsIn(text, context));
        return vault.seal(text, context);
      },
      open: (sealed, context) => {
        const text = vault.open(sealed, context);
        this.add(...secretsIn(text, context));
        return text;
      },
    };
  }
}

/** Contexts begin with what it is that is sealed. */
function secretsIn(text: string, context: string): string[] {
  const values = () => {
    switch (context.split(':', 1)[0]) {
      case 'version': {
        const { vars, secret_names } = JSON.parse(text) as VersionEnv;
        return secret_names.map((name) => vars[name] ?? '');
      }
      case 'sandbox-env': {
        const vars = Object.entries(JSON.parse(text) as Record<string, string>);
        return vars.flatMap(([name, value]) => (looksSecret(name) ? [value] : []));
      }
      case 'webhook-headers':
        return Object.values(JSON.parse(text) as Record<string, string>);
      case 'webhook-secret':
        return [text];
      default:
        return [];
    }
  };
  return values().filter((value) => value !== '');
}

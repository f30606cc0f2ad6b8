/**
 * Environment variables of a deployment, per environment. A variable reaches running instances; it reaches the
 * build only when it is asked to (`at_build`) or when its name has a prefix that front-end tools inline by
 * convention. Secret values are masked in every answer and redacted by value in every log.
 */
export interface EnvVar {
  deployment_id: string;
  environment: string;
  name: string;
  value: string;
  is_secret: boolean;
  at_build: boolean;
  created_at: Date;
  updated_at: Date;
}

/** Prefixes whose variables tools put into client bundles: public by their own documentation. */
const PUBLIC_PREFIXES = [
  'VITE_',
  'NEXT_PUBLIC_',
  'PUBLIC_',
  'REACT_APP_',
  'NUXT_PUBLIC_',
  'GATSBY_',
  'VUE_APP_',
  'EXPO_PUBLIC_',
  'ASTRO_PUBLIC_',
];

export function isPublicName(name: string): boolean {
  return PUBLIC_PREFIXES.some((prefix) => name.startsWith(prefix));
}

const SECRET_WORDS =
  /(SECRET|TOKEN|PASSW|PASSPHRASE|CREDENTIAL|PRIVATE|API_?KEY|ACCESS_?KEY|_KEY$|^KEY$|DATABASE_URL|REDIS_URL|MONGO|DSN|COOKIE|SALT|SIGNING|WEBHOOK)/i;

/** Without an explicit wish: does the name say that the value is a secret? */
export function looksSecret(name: string): boolean {
  return !isPublicName(name) && SECRET_WORDS.test(name);
}

/** Shown in lists instead of the value. Secrets are masked completely. */
export function preview(value: string, is_secret: boolean): string {
  if (is_secret || value.length < 8) return '••••••';
  return `${value.slice(0, 3)}…${value.slice(-2)}`;
}

export const ENV_NAME = /^[A-Za-z_][A-Za-z0-9_]{0,254}$/;

/** The crash test with the number of kills that the promise names. */
process.env.KILN_TEST_CRASHES = '100';
await import('./crash.test.ts');

// An identity provider on loopback: `oidc-provider` as it comes, with a person who says yes to whatever they are asked.
//
//   node provider.mjs ADDRESS-OF-THE-PACKAGE < settings.json
//
// Settings are its keys (a JWKS with private parts), its clients, for which client it keeps a nonce, and the audience of tokens for
// services. The first line printed is its issuer. Who the person is, each request to /interaction says in the header `x-account`: claims as JSON in base64url.

import http from 'node:http';
import { text } from 'node:stream/consumers';

const { default: Provider } = await import(process.argv[2]);
const { keys, clients, nonce, audience } = JSON.parse(await text(process.stdin));
const people = new Map();

const server = http.createServer();
await new Promise((done) => { server.listen(0, '127.0.0.1', done); });
const issuer = `http://127.0.0.1:${server.address().port}`;

const provider = new Provider(issuer, {
  clients,
  jwks: { keys },
  scopes: ['openid', 'profile', 'groups'],
  claims: { openid: ['sub'], profile: ['name', 'preferred_username'], groups: ['groups'] },
  conformIdTokenClaims: false, // the registry asks no userinfo: claims come in the ID token
  cookies: { keys: ['not a secret at all'] },
  enabledJWA: { idTokenSigningAlgValues: ['ES256', 'RS256'] },
  findAccount: (_, id) => ({ accountId: id, claims: () => people.get(id) }),
  interactions: { url: (_, interaction) => `/interaction/${interaction.uid}` },
  ttl: { AccessToken: 300, ClientCredentials: 300, DeviceCode: 300, IdToken: 300, Grant: 300, Interaction: 300, Session: 300 },
  features: {
    devInteractions: { enabled: false },
    deviceFlow: { enabled: true },
    clientCredentials: { enabled: true },
    resourceIndicators: {
      enabled: true,
      defaultResource: (ctx) => (ctx.oidc.params.grant_type === 'client_credentials' ? audience : undefined),
      getResourceServerInfo: () => ({ scope: '', audience, accessTokenFormat: 'jwt', jwt: { sign: { alg: 'ES256' } } }),
    },
  },
});

// In the device flow this provider forgets the nonce, where others, such as Keycloak, write it into the ID token.
provider.use(async (ctx, next) => {
  await next();
  const code = ctx.oidc?.route === 'device_authorization' && ctx.oidc.entities.DeviceCode;
  if (code && code.clientId === nonce) {
    code.nonce = ctx.oidc.params.nonce;
    await code.save();
  }
});

async function interact(request, response) {
  const { prompt, params, session } = await provider.interactionDetails(request, response);
  if (prompt.name === 'login') {
    const claims = JSON.parse(Buffer.from(request.headers['x-account'], 'base64url'));
    people.set(claims.sub, claims);
    return provider.interactionFinished(request, response, { login: { accountId: claims.sub } });
  }
  const grant = new provider.Grant({ accountId: session.accountId, clientId: params.client_id });
  grant.addOIDCScope(params.scope);
  return provider.interactionFinished(request, response, { consent: { grantId: await grant.save() } });
}

const handle = provider.callback();
server.on('request', (request, response) => {
  if (!request.url.startsWith('/interaction/')) return handle(request, response);
  return interact(request, response).catch((error) => {
    response.statusCode = 500;
    response.end(String(error));
  });
});
console.log(issuer);

// Shows the API's document. Requests that are tried out go to the API that served the page, with the browser's own session.
SwaggerUIBundle({
  url: "/api/openapi.json",
  dom_id: "#swagger-ui",
  deepLinking: true,
  tryItOutEnabled: false,
  presets: [SwaggerUIBundle.presets.apis],
  // The validator badge would ask a server elsewhere.
  validatorUrl: null,
});

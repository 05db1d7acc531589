/** One call to an API: all that a bot would write. */
public class Client {
    public static void main(String[] arguments) throws Exception {
        var request = java.net.http.HttpRequest.newBuilder(java.net.URI.create(arguments[0])).build();
        var body = java.net.http.HttpResponse.BodyHandlers.ofString();
        System.out.println(java.net.http.HttpClient.newHttpClient().send(request, body).statusCode());
    }
}

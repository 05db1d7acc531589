import java.net.HttpURLConnection;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;

/** Calls URLs by both clients of Java, the old one at a path beside: the status, and what it was told. */
class Client {
    static String told(String text) {
        var key = text.replaceFirst("(?s).*\"key\": *\"([^\"]*)\".*", "$1");
        return !key.isEmpty() && !key.equals(text) ? key : text.replaceFirst("(?s).*\"uri\": *\"([^\"]*)\".*", "$1");
    }

    public static void main(String[] urls) throws Exception {
        for (var url : urls) {
            var request = HttpRequest.newBuilder(URI.create(url)).build();
            var answer = HttpClient.newHttpClient().send(request, HttpResponse.BodyHandlers.ofString());
            System.out.println("HttpClient " + answer.version() + " " + answer.statusCode() + " " + told(answer.body()));
            var connection = (HttpURLConnection) URI.create(url + "-old").toURL().openConnection();
            var body = new String(connection.getInputStream().readAllBytes());
            System.out.println("HttpURLConnection " + connection.getResponseCode() + " " + told(body));
        }
    }
}
